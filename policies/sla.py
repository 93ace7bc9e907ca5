"""Service levels: how long a ticket has aged, and when it is due. The clock stands still while a ticket is pending (T-10)."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

_ZERO: Final = timedelta()


@dataclass(frozen=True, slots=True)
class SlaClock:
    """The age of one cycle, from a ticket's creation or reopening: it ran for `elapsed`, and runs since `running_since`.

    It stands still while `running_since` is None.
    """

    elapsed: timedelta = _ZERO
    running_since: datetime | None = None


def started(now: datetime) -> SlaClock:
    """Return the clock of a new cycle."""
    return SlaClock(_ZERO, now)


def age(clock: SlaClock, now: datetime) -> timedelta:
    """Return how long the clock has run by now."""
    if clock.running_since is None:
        return clock.elapsed
    # A transaction that waited for another one may have begun before it: time never runs backwards here.
    return clock.elapsed + max(_ZERO, now - clock.running_since)


def stopped(clock: SlaClock, now: datetime) -> SlaClock:
    """Return the clock, standing still. What had run by now is kept."""
    return SlaClock(age(clock, now))


def resumed(clock: SlaClock, now: datetime) -> SlaClock:
    """Return the clock, running on from where it stood. A clock that runs is not changed."""
    return clock if clock.running_since is not None else SlaClock(clock.elapsed, now)


def due_at(clock: SlaClock, threshold_s: int | None) -> datetime | None:
    """Return when the age reaches the threshold; None while the clock stands still, or without a threshold."""
    if clock.running_since is None or threshold_s is None:
        return None
    return clock.running_since + timedelta(seconds=threshold_s) - clock.elapsed


def remaining(clock: SlaClock, threshold_s: int | None) -> timedelta | None:
    """Return what is left of the threshold on a clock that stands still; None while it runs, or without a threshold."""
    if clock.running_since is not None or threshold_s is None:
        return None
    return max(_ZERO, timedelta(seconds=threshold_s) - clock.elapsed)
