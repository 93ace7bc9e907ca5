"""When people are reminded of what they booked."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Reminder:
    """A reminder to come: when it is due, and how many minutes before the start that is."""

    due_at: datetime
    minutes_before: int


def next_reminder(begins_at: datetime, minutes_before: Iterable[int], now: datetime) -> Reminder | None:
    """Return the earliest reminder that is still to come; None if all are past.

    A reminder whose time is past is left out: whoever books a day ahead needs no reminder of the day before.
    """
    to_come = [minutes for minutes in minutes_before if begins_at - timedelta(minutes=minutes) > now]
    if not to_come:
        return None
    minutes = max(to_come)
    return Reminder(begins_at - timedelta(minutes=minutes), minutes)
