"""Arithmetic of measurements: percentiles, medians with their spread, ratios of rounds that ran next to each other."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of all values do not exceed (nearest rank). ValueError without values."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)]


@dataclass(frozen=True, slots=True)
class Cost:
    """Per event, but for `seconds` and `memory_bytes` (by role, at the end)."""

    events: int
    seconds: float
    cpu_us: dict[str, float]
    app_round_trips: float
    worker_round_trips: float
    commits: float
    wal_bytes: float
    disk_bytes: float
    redis_commands: float
    memory_bytes: dict[str, int]


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of several rounds, and how far the rounds lie apart."""

    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """ValueError without values."""
        found = list(values)
        if not found:
            raise ValueError("no rounds")
        return cls(median(found), min(found), max(found), len(found))


def ratios(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Each round's figure over that of the round it was interleaved with, so that a slow spell of the machine hits both.

    ValueError where the rounds do not pair.
    """
    return Spread.of(a / b for a, b in zip(above, below, strict=True))


@dataclass(frozen=True, slots=True)
class Latency:
    """A distribution of times in milliseconds."""

    count: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> "Latency":
        """ValueError without values."""
        found = [value * 1000 for value in seconds]
        return cls(
            len(found), percentile(found, 50), percentile(found, 90), percentile(found, 99), percentile(found, 100)
        )


def per_second(times_s: Sequence[float], step_s: float) -> list[tuple[float, float]]:
    """How often something happened over time: (seconds since the first time, times per second in that step)."""
    if not times_s:
        return []
    first = min(times_s)
    counts = [0] * (int((max(times_s) - first) / step_s) + 1)
    for at in times_s:
        counts[int((at - first) / step_s)] += 1
    return [(n * step_s, count / step_s) for n, count in enumerate(counts)]


def steady_rate(times_s: Sequence[float], skip: float = 0.1) -> float:
    """Times per second between the first and the last tenth (`skip`): without the start and the tail of a run."""
    ordered = sorted(times_s)
    first, last = int(len(ordered) * skip), int(len(ordered) * (1 - skip)) - 1
    if last <= first:
        raise ValueError("too few times")
    return (last - first) / (ordered[last] - ordered[first])
