"""The retry schedule of deliveries: fixed backoff, which a receiver's Retry-After may lengthen."""

from datetime import UTC, datetime, timedelta
from typing import Final

SCHEDULE_S: Final[tuple[int, ...]] = (1, 4, 16, 60, 300, 1800, 7200)
"""Seconds to wait after failure n = 1..7, counted from the end of the attempt; no jitter (X2). 9,381 s in total."""

MAX_ATTEMPTS: Final = len(SCHEDULE_S) + 1
"""The number of the failure that makes a delivery dead: one more than the schedule has waits."""

RETRY_AFTER_CAP_S: Final = 7200
"""The maximum Retry-After that counts, in seconds (X19)."""

_MAX_HEADER_CHARS: Final = 64
_HTTP_DATE_FORMATS: Final = (
    "%a, %d %b %Y %H:%M:%S GMT",  # IMF-fixdate
    "%A, %d-%b-%y %H:%M:%S GMT",  # RFC 850
    "%a %b %d %H:%M:%S %Y",  # asctime
)


def next_attempt_at(failures: int, ended_at: datetime, retry_after_s: float | None = None) -> datetime | None:
    """Return when the attempt after failure number `failures` (from 1) is due; None if that failure makes it dead.

    `retry_after_s` is the result of `parse_retry_after`. The longer of it and the scheduled wait counts: a receiver may
    delay a retry, but never advance it. Raises ValueError if `failures` is less than 1.
    """
    if failures < 1:
        raise ValueError(f"failures counts from 1, got {failures}")
    if failures >= MAX_ATTEMPTS:
        return None
    asked_s = min(retry_after_s or 0.0, RETRY_AFTER_CAP_S)
    return ended_at + timedelta(seconds=max(SCHEDULE_S[failures - 1], asked_s))


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds that a Retry-After header asks for (RFC 9110 10.2.3), at most two hours.

    Reads whole seconds and the three forms of an HTTP-date. Returns None for anything else, a date in the past and a
    negative number.
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
