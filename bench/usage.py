"""What processes cost, read from /proc: CPU time with that of their children, and memory."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

_PROC = Path("/proc")
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> tuple[int, tuple[int, int, int, int]] | None:
    """The parent of a process, and its own and its reaped children's ticks; None when it is gone."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    own = (int(fields[11]), int(fields[12]), int(fields[13]), int(fields[14]))
    return int(fields[1]), own


def _children(pid: int) -> list[int]:
    every = (int(path.name) for path in _PROC.glob("[0-9]*"))
    return [child for child in every if (stat := _stat(child)) is not None and stat[0] == pid]


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and of all its children, those that ended included."""
    total = 0
    stat = _stat(pid)
    if stat is not None:
        total += sum(stat[1])
    for child in _children(pid):
        found = _stat(child)
        total += sum(found[1]) if found is not None else 0
    return total * _TICK_S


def memory_bytes(pid: int) -> int:
    """Proportional memory of a process and its children: pages that several share count once."""
    return sum(_pss(one) for one in (pid, *_children(pid)))


def _pss(pid: int) -> int:
    try:
        for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return 0
    return 0


def cpu_by_role(pids: Mapping[str, Iterable[int]]) -> dict[str, float]:
    """CPU seconds of each role's processes so far."""
    return {role: sum(cpu_s(pid) for pid in of_role) for role, of_role in pids.items()}


def memory_by_role(pids: Mapping[str, Iterable[int]]) -> dict[str, int]:
    """Bytes of each role's processes together."""
    return {role: sum(memory_bytes(pid) for pid in of_role) for role, of_role in pids.items()}


def machine_busy_s() -> float:
    """CPU seconds that this machine has spent on anything at all."""
    fields = [int(text) for text in (_PROC / "stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) * _TICK_S  # without idle and waiting for disks
