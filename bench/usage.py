"""Read the CPU time and memory of processes and their children from /proc."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

_PROC = Path("/proc")
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> tuple[int, tuple[int, int, int, int]] | None:
    """Return the parent of a process, and the ticks of it and its reaped children; None if it has ended."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the process name before it may contain spaces
    own = (int(fields[11]), int(fields[12]), int(fields[13]), int(fields[14]))
    return int(fields[1]), own


def _children(pid: int) -> list[int]:
    pids = (int(path.name) for path in _PROC.glob("[0-9]*"))
    return [child for child in pids if (stat := _stat(child)) is not None and stat[0] == pid]


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process and all its children, including children that ended."""
    total = 0
    stat = _stat(pid)
    if stat is not None:
        total += sum(stat[1])
    for child in _children(pid):
        found = _stat(child)
        total += sum(found[1]) if found is not None else 0
    return total * _TICK_S


def memory_bytes(pid: int) -> int:
    """Return the proportional memory of a process and its children. Shared pages count once."""
    return sum(_pss(each) for each in (pid, *_children(pid)))


def _pss(pid: int) -> int:
    try:
        for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return 0
    return 0


def cpu_by_role(pids: Mapping[str, Iterable[int]]) -> dict[str, float]:
    """Return the CPU seconds of the processes of each role."""
    return {role: sum(cpu_s(pid) for pid in of_role) for role, of_role in pids.items()}


def memory_by_role(pids: Mapping[str, Iterable[int]]) -> dict[str, int]:
    """Return the memory in bytes of the processes of each role."""
    return {role: sum(memory_bytes(pid) for pid in of_role) for role, of_role in pids.items()}


def machine_busy_s() -> float:
    """Return the CPU seconds that this machine has used for all processes."""
    fields = [int(text) for text in (_PROC / "stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) * _TICK_S  # without idle time and I/O wait
