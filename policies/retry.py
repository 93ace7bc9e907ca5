"""When a failed delivery is tried again: the fixed schedule, and what a receiver's Retry-After may add to it."""

from datetime import UTC, datetime, timedelta
from typing import Final

SCHEDULE_S: Final[tuple[int, ...]] = (1, 4, 16, 60, 300, 1800, 7200)
"""Seconds to wait after failure n = 1..7, from the end of the attempt; without jitter (X2). 9,381 s in all."""

MAX_ATTEMPTS: Final = len(SCHEDULE_S) + 1
"""The failure that makes a delivery dead: one more than there are waits."""

RETRY_AFTER_CAP_S: Final = 7200
"""The longest that a receiver can slow us down (X19)."""

_MAX_HEADER_CHARS: Final = 64
_HTTP_DATE_FORMATS: Final = (
    "%a, %d %b %Y %H:%M:%S GMT",  # IMF-fixdate
    "%A, %d-%b-%y %H:%M:%S GMT",  # RFC 850
    "%a %b %d %H:%M:%S %Y",  # asctime
)


def next_attempt_at(failures: int, ended_at: datetime, retry_after_s: float | None = None) -> datetime | None:
    """When the attempt after failure number `failures` (from 1) starts; None when that failure makes it dead.

    `retry_after_s` is what `parse_retry_after` gave. A receiver may slow us, never hurry us: the longer wait counts.
    """
    if failures < 1:
        raise ValueError(f"failures counts from 1, got {failures}")
    if failures >= MAX_ATTEMPTS:
        return None
    asked_s = min(retry_after_s or 0.0, RETRY_AFTER_CAP_S)
    return ended_at + timedelta(seconds=max(SCHEDULE_S[failures - 1], asked_s))


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110 10.2.3), capped at two hours.

    Whole seconds or an HTTP-date in its three forms. Junk, a date in the past and a negative number count as absent.
    """
    if value is None or len(value) > _MAX_HEADER_CHARS or not value.isascii():
        return None
    text = value.strip(" \t")
    if text.isdigit():
        return float(min(int(text), RETRY_AFTER_CAP_S))
    until = _http_date(text)
    if until is None:
        return None
    wait_s = (until - now).total_seconds()
    return min(wait_s, float(RETRY_AFTER_CAP_S)) if wait_s > 0 else None


def _http_date(text: str) -> datetime | None:
    for form in _HTTP_DATE_FORMATS:
        try:
            return datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            continue
    return None
