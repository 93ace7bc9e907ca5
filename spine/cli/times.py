"""Parse and format times and durations: `2h`, `90s`, `2026-11-21`, `2026-11-21T08:00:00Z`."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

import typer

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_DURATION: Final = re.compile(r"(\d{1,9})([smhdw])")


def parse_duration_s(text: str) -> int:
    """Return a duration in seconds. Raises typer.BadParameter."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no span of time; write 90s, 15m, 2h, 3d or 1w")
    return int(found[1]) * _UNITS_S[found[2]]


def parse_time(text: str, now: datetime) -> str:
    """Return a time as the API expects it, from an ISO 8601 time (UTC if it has no offset) or a duration before `now`.

    Raises typer.BadParameter.
    """
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        if not _DURATION.fullmatch(text.strip()):
            raise typer.BadParameter(
                f"{text!r} is no time; write 2026-11-21T08:00:00Z, 2026-11-21, or 2h for two hours ago"
            ) from None
        at = now - timedelta(seconds=parse_duration_s(text))
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def format_time(timestamp: str | None) -> str:
    """Return a timestamp of the API as date and time in UTC, without fractions of a second."""
    return "" if timestamp is None else timestamp[:19].replace("T", " ")


def elapsed_s(earlier: str, later: str) -> float:
    """Return the seconds between two timestamps of the API."""
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()


def format_duration(length_s: float) -> str:
    """Return a duration for people, such as `12 ms` or `1 m 5 s`."""
    if length_s < 1:
        return f"{length_s * 1000:.0f} ms"
    if round(length_s) < 60:
        return f"{length_s:.3g} s"
    minutes, rest = divmod(round(length_s), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours // 24, "d"), (hours % 24, "h"), (minutes, "m"), (rest, "s"))
    return " ".join(f"{amount} {unit}" for amount, unit in parts if amount)
