"""Check the machine: Python version, disk space, limit of open files."""

import resource
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from spine.cli.doctor.finding import Finding, by_limits, fail, ok, warn
from spine.kernel.settings import WorkSettings

_GIB: Final = 1024**3
_MIN_VERSION: Final = (3, 11)
_OTHER_FILES: Final = 192
"""Files that a worker opens besides its calls in flight: database, Redis, logs, libraries."""


def python(version: tuple[int, ...]) -> Finding:
    """Judge the version of the running interpreter."""
    observed = ".".join(map(str, version[:3]))
    if version[:2] < _MIN_VERSION:
        return fail("python", observed, "install Python 3.11 or newer, and run make with PYTHON=/path/to/it")
    return ok("python", observed)


def disk(directory: Path, free_bytes: int, total_bytes: int) -> Finding:
    """Judge the free space of the data directory. Postgres refuses every write when its disk is full."""
    observed = f"{free_bytes / _GIB:.1f} of {total_bytes / _GIB:.0f} GiB free in {directory}"
    remedy = "free disk space, or keep less: SPINE_RETENTION_DAYS"
    return by_limits("disk", observed, -free_bytes, -5 * _GIB, -_GIB, remedy)


def open_files(limit: int, needed: int) -> Finding:
    """Judge the limit of this shell. Processes started from it inherit it; systemd services have their own limit."""
    if limit == resource.RLIM_INFINITY:
        return ok("open files", "no limit")
    observed = f"limit {limit} in this shell; a worker may need {needed}"
    remedy = "ulimit -n 65536 before the start (systemd: LimitNOFILE=65536), or lower SPINE_MAX_IN_FLIGHT"
    if limit < needed:
        return fail("open files", observed, remedy)
    return ok("open files", observed) if limit >= needed * 5 // 4 else warn("open files", observed, remedy)


def check_machine(directory: Path, work: WorkSettings | None) -> Iterator[Finding]:
    """Yield the findings about the machine."""
    yield python(sys.version_info[:3])
    existing = next(path for path in (directory.resolve(), *directory.resolve().parents) if path.is_dir())
    usage = shutil.disk_usage(existing)
    yield disk(existing, usage.free, usage.total)
    in_flight = work.max_in_flight if work else int(WorkSettings.model_fields["max_in_flight"].default)
    yield open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0], in_flight + _OTHER_FILES)
