"""Hours in which nothing is sent: a policy's quiet hours, and the window that Indian rules leave for promotional SMS."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, Literal
from zoneinfo import ZoneInfo


@dataclass(frozen=True, slots=True)
class QuietHours:
    """From `start` up to, but not at, `end` on the wall clock of a place; over midnight where `end` is the earlier one."""

    start: time
    end: time
    time_zone: str
    then: Literal["wait", "skip"] = "wait"
    """What becomes of a step that falls into them: it waits for their end, or the next one is taken."""


INDIAN_PROMOTION: Final = QuietHours(time(21), time(10), "Asia/Kolkata", "skip")
"""Promotional and service-explicit SMS go out from 10:00 to 21:00 IST; outside, the registry refuses with 651."""
_WINDOWED: Final = frozenset({"promotional", "service_explicit"})


def quiet_until(quiet: QuietHours, now: datetime) -> datetime | None:
    """The end of the quiet hours that `now` lies in, in UTC; None outside of them, and at their very end.

    Wall-clock times are read in the place's own zone, so a night in which the clocks change is an hour shorter or
    longer. A time that a change skips counts as the moment of the change, one that comes twice as its first coming.
    """
    zone = ZoneInfo(quiet.time_zone)
    today = now.astimezone(zone).date()
    for day in (today - timedelta(days=1), today):
        begins = _instant(day, quiet.start, zone)
        last_day = day if quiet.start < quiet.end else day + timedelta(days=1)
        ends = _instant(last_day, quiet.end, zone)
        if begins <= now < ends:
            return ends
    return None


def dlt_window_closed(channel: str, address: str, dlt_category: str | None, now: datetime) -> bool:
    """Whether Indian rules forbid this send at this hour (providers.md 2.3). Only SMS to Indian numbers are bound."""
    if channel != "sms" or not address.startswith("+91") or dlt_category not in _WINDOWED:
        return False
    return quiet_until(INDIAN_PROMOTION, now) is not None


def _instant(day: date, at: time, zone: ZoneInfo) -> datetime:
    local = datetime.combine(day, at, zone)
    instant = local.astimezone(UTC)
    if instant.astimezone(zone).replace(tzinfo=None) != local.replace(tzinfo=None):
        # The clocks jump over this time: PEP 495 reads it with the offset from before, which lands after the jump.
        after = local.replace(fold=1).astimezone(UTC)
        return _jump_between(min(instant, after), max(instant, after), zone)
    return instant


def _jump_between(early: datetime, late: datetime, zone: ZoneInfo) -> datetime:
    offset = early.astimezone(zone).utcoffset()
    while late - early > timedelta(seconds=1):
        middle = early + (late - early) / 2
        if middle.astimezone(zone).utcoffset() == offset:
            early = middle
        else:
            late = middle
    return late.replace(microsecond=0)
