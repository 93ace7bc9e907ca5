"""The machine: Python, disk, open files, ports."""

import resource
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from spine.cli.doctor.finding import Finding, by_limits, fail, ok, warn
from spine.kernel.settings import WorkSettings

_GIB: Final = 1024**3
_OLDEST: Final = (3, 11)
_OTHER_FILES: Final = 192
"""Databases, Redis, logs, the libraries' own."""


def python(version: tuple[int, ...]) -> Finding:
    """The interpreter that runs this."""
    saw = ".".join(map(str, version[:3]))
    if version[:2] < _OLDEST:
        return fail("python", saw, "install Python 3.11 or newer, and run make with PYTHON=/path/to/it")
    return ok("python", saw)


def disk(directory: Path, free_bytes: int, total_bytes: int) -> Finding:
    """Room where the data lies. A Postgres that is full refuses every write."""
    saw = f"{free_bytes / _GIB:.1f} of {total_bytes / _GIB:.0f} GiB free in {directory}"
    mend = "make room, or keep less: SPINE_RETENTION_DAYS"
    return by_limits("disk", saw, -free_bytes, -5 * _GIB, -_GIB, mend)


def open_files(limit: int, needed: int) -> Finding:
    """The limit of this shell, which processes started from it inherit; units of systemd have their own."""
    if limit == resource.RLIM_INFINITY:
        return ok("open files", "no limit")
    saw = f"limit {limit} in this shell; a worker may need {needed}"
    mend = "ulimit -n 65536 before the start (systemd: LimitNOFILE=65536), or lower SPINE_MAX_IN_FLIGHT"
    if limit < needed:
        return fail("open files", saw, mend)
    return ok("open files", saw) if limit >= needed * 5 // 4 else warn("open files", saw, mend)


def machine(directory: Path, work: WorkSettings | None) -> Iterator[Finding]:
    """All of it."""
    yield python(sys.version_info[:3])
    existing = next(path for path in (directory.resolve(), *directory.resolve().parents) if path.is_dir())
    usage = shutil.disk_usage(existing)
    yield disk(existing, usage.free, usage.total)
    in_flight = work.max_in_flight if work else int(WorkSettings.model_fields["max_in_flight"].default)
    yield open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0], in_flight + _OTHER_FILES)
