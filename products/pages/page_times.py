"""Times as a visitor reads them: English, in one time zone that is always named."""

from datetime import date, datetime, tzinfo
from functools import cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_REGIONS: Final = (
    "Africa/",
    "America/",
    "Antarctica/",
    "Asia/",
    "Atlantic/",
    "Australia/",
    "Europe/",
    "Indian/",
    "Pacific/",
)


@cache
def zone_names() -> tuple[str, ...]:
    """Return the time zones that a visitor may choose."""
    return (*sorted(name for name in available_timezones() if name.startswith(_REGIONS)), "UTC")


def zone(name: str, default: str) -> ZoneInfo:
    """Return the zone of this name if a visitor may choose it, else the default one, else UTC."""
    for candidate in (name if name in zone_names() else "", default):
        try:
            if candidate:
                return ZoneInfo(candidate)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            continue
    return ZoneInfo("UTC")


def day_text(day: date) -> str:
    """Return a day, such as `Monday 30 November 2026`."""
    return f"{_DAYS[day.weekday()]} {day.day} {_MONTHS[day.month - 1]} {day.year}"


def clock_text(at: datetime) -> str:
    """Return the time of day, such as `09:30`."""
    return f"{at.hour:02}:{at.minute:02}"


def zone_text(at: datetime, name: str) -> str:
    """Return the zone of a local time, such as `Asia/Kolkata, UTC+05:30`. The difference changes with daylight saving."""
    minutes = int((at.utcoffset() or at - at).total_seconds()) // 60
    return f"{name}, UTC{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


def span_text(starts_at: datetime, ends_at: datetime, in_zone: tzinfo) -> str:
    """Return both times of an appointment in a zone. The day of its end is named if it is another one."""
    start, end = starts_at.astimezone(in_zone), ends_at.astimezone(in_zone)
    until = clock_text(end) if start.date() == end.date() else f"{day_text(end.date())}, {clock_text(end)}"
    return f"{day_text(start.date())}, {clock_text(start)} – {until}"
