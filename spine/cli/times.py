"""Times and spans as people type them: `2h`, `90s`, `2026-11-21`, `2026-11-21T08:00:00Z`."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

import typer

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SPAN: Final = re.compile(r"(\d{1,9})([smhdw])")


def seconds(text: str) -> int:
    """A span in seconds. Raises typer.BadParameter."""
    found = _SPAN.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no span of time; write 90s, 15m, 2h, 3d or 1w")
    return int(found[1]) * _UNITS_S[found[2]]


def moment(text: str, now: datetime) -> str:
    """An instant for the API: an ISO 8601 one (UTC unless it says otherwise), or so long before `now`.

    Raises typer.BadParameter.
    """
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        if not _SPAN.fullmatch(text.strip()):
            raise typer.BadParameter(
                f"{text!r} is no time; write 2026-11-21T08:00:00Z, 2026-11-21, or 2h for two hours ago"
            ) from None
        at = now - timedelta(seconds=seconds(text))
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clock(instant: str | None) -> str:
    """An instant of the API's for the eye: date and time to the second, in UTC."""
    return "" if instant is None else instant[:19].replace("T", " ")


def between_s(earlier: str, later: str) -> float:
    """Seconds from one instant of the API's to another."""
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()


def span(length_s: float) -> str:
    """A length of time for the eye."""
    if length_s < 1:
        return f"{length_s * 1000:.0f} ms"
    if round(length_s) < 60:
        return f"{length_s:.3g} s"
    minutes, rest = divmod(round(length_s), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours // 24, "d"), (hours % 24, "h"), (minutes, "m"), (rest, "s"))
    return " ".join(f"{amount} {unit}" for amount, unit in parts if amount)
