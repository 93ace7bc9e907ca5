"""Time windows without sending: the quiet hours of a policy, and the Indian rules for promotional SMS."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, Literal
from zoneinfo import ZoneInfo


@dataclass(frozen=True, slots=True)
class QuietHours:
    """From `start` (inclusive) to `end` (exclusive), local time in `time_zone`; over midnight if `end` is before `start`."""

    start: time
    end: time
    time_zone: str
    then: Literal["wait", "skip"] = "wait"
    """What a step does in quiet hours: it waits for their end, or it is skipped."""


INDIAN_PROMOTION: Final = QuietHours(time(21), time(10), "Asia/Kolkata", "skip")
"""Promotional and service-explicit SMS may be sent from 10:00 to 21:00 IST; otherwise the registry rejects with 651."""
_WINDOWED: Final = frozenset({"promotional", "service_explicit"})


def quiet_until(quiet: QuietHours, now: datetime) -> datetime | None:
    """Return the end, in UTC, of the quiet hours that contain `now`; None outside of them and exactly at their end.

    Times are local times of the zone, so a night with a clock change is an hour shorter or longer. A local time that
    the change skips counts as the time of the change; a local time that occurs twice counts as its first occurrence.
    """
    zone = ZoneInfo(quiet.time_zone)
    today = now.astimezone(zone).date()
    for day in (today - timedelta(days=1), today):
        begins = _to_utc(day, quiet.start, zone)
        last_day = day if quiet.start < quiet.end else day + timedelta(days=1)
        ends = _to_utc(last_day, quiet.end, zone)
        if begins <= now < ends:
            return ends
    return None


def dlt_window_closed(channel: str, address: str, dlt_category: str | None, now: datetime) -> bool:
    """Return True if Indian rules forbid this send now (providers.md 2.3). They apply only to SMS to Indian numbers."""
    if channel != "sms" or not address.startswith("+91") or dlt_category not in _WINDOWED:
        return False
    return quiet_until(INDIAN_PROMOTION, now) is not None


def _to_utc(day: date, at: time, zone: ZoneInfo) -> datetime:
    local = datetime.combine(day, at, zone)
    instant = local.astimezone(UTC)
    if instant.astimezone(zone).replace(tzinfo=None) != local.replace(tzinfo=None):
        # A clock change skips this local time: PEP 495 reads it with the earlier offset, which gives a time after the change.
        after = local.replace(fold=1).astimezone(UTC)
        return _transition_between(min(instant, after), max(instant, after), zone)
    return instant


def _transition_between(early: datetime, late: datetime, zone: ZoneInfo) -> datetime:
    offset = early.astimezone(zone).utcoffset()
    while late - early > timedelta(seconds=1):
        middle = early + (late - early) / 2
        if middle.astimezone(zone).utcoffset() == offset:
            early = middle
        else:
            late = middle
    return late.replace(microsecond=0)
