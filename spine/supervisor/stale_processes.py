"""Server processes that an earlier run left in a data directory, found by their working directory."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

_PROC = Path("/proc")


def processes_in(directory: Path, programs: Sequence[str]) -> list[int]:
    """The ids of processes of these programs whose working directory is `directory`. Linux only; elsewhere empty."""
    found = []
    for entry in _PROC.glob("[0-9]*"):
        try:
            # An ended process has no working directory: its link is unreadable, though its entry stays until it is reaped.
            if (entry / "cwd").readlink() == directory and (entry / "comm").read_text().strip() in programs:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def can_see_processes() -> bool:
    """Whether this system shows the working directories of processes."""
    return (_PROC / "self/cwd").exists()


def terminate(list_processes: Callable[[], list[int]], signals: Sequence[tuple[signal.Signals, float]]) -> None:
    """Send each signal in turn, each with its grace period in seconds, until no process is left."""
    for number, grace_s in signals:
        for process in list_processes():
            try:
                os.kill(process, number)
            except ProcessLookupError:
                continue
        until_s = time.monotonic() + grace_s
        while time.monotonic() < until_s:
            if not list_processes():
                return
            time.sleep(0.05)
