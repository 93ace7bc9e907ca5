"""Statistics of measurements: percentiles, medians with their spread, ratios of interleaved rounds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the percentile by nearest rank. Raises ValueError without values."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)]


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost per event, except `seconds` and `memory_bytes` (by role, at the end)."""

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
    """The median, the minimum and the maximum of several rounds."""

    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Raises ValueError without values."""
        found = list(values)
        if not found:
            raise ValueError("no rounds")
        return cls(median(found), min(found), max(found), len(found))


def ratios(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Divide each round by the round it was interleaved with, so that a slow period of the machine affects both.

    Raises ValueError if the numbers of rounds differ.
    """
    return Spread.of(a / b for a, b in zip(above, below, strict=True))


@dataclass(frozen=True, slots=True)
class Latency:
    """A distribution of durations in milliseconds."""

    count: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> "Latency":
        """Raises ValueError without values."""
        found = [value * 1000 for value in seconds]
        return cls(
            len(found), percentile(found, 50), percentile(found, 90), percentile(found, 99), percentile(found, 100)
        )


def per_second(times_s: Sequence[float], step_s: float) -> list[tuple[float, float]]:
    """Return the rate over time as pairs: seconds since the first time, events per second in that step."""
    if not times_s:
        return []
    first = min(times_s)
    counts = [0] * (int((max(times_s) - first) / step_s) + 1)
    for at in times_s:
        counts[int((at - first) / step_s)] += 1
    return [(n * step_s, count / step_s) for n, count in enumerate(counts)]


def steady_rate(times_s: Sequence[float], skip: float = 0.1) -> float:
    """Return the events per second without the first and the last tenth (`skip`) of a run. Raises ValueError if too few."""
    ordered = sorted(times_s)
    first, last = int(len(ordered) * skip), int(len(ordered) * (1 - skip)) - 1
    if last <= first:
        raise ValueError("too few times")
    return (last - first) / (ordered[last] - ordered[first])
