"""Attempts of a delivery, as stored in the `attempts` column of its row."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson

EXCERPT_BYTES: Final = 8192
KEPT_ATTEMPTS: Final = 16
"""Attempts of earlier series that a replay keeps, so that a row does not grow with every replay."""
EARLIER_ATTEMPTS: Final = f"jsonb_path_query_array(attempts, '$[last - {KEPT_ATTEMPTS - 1} to last]')"
"""SQL for the attempts that a replay keeps of a row."""


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One stored attempt. A replay starts a new series, and numbers start at 1 in each series."""

    number: int
    series: int
    started_at: datetime
    ended_at: datetime
    status_code: int | None
    error: str | None
    response_body: str
    retry_after_s: float | None = None
    next_attempt_at: datetime | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the element that is appended to a row's `attempts`."""
        return {
            "number": self.number,
            "series": self.series,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "status_code": self.status_code,
            "error": self.error,
            "response_body": self.response_body,
            "retry_after_s": self.retry_after_s,
            "next_attempt_at": self.next_attempt_at,
        }


def excerpt(body: bytes) -> str:
    """Return the start of a response body as text of at most 8 KiB. Invalid UTF-8 and U+0000, which jsonb refuses, become U+FFFD."""
    if not body:
        return ""
    text = body[:EXCERPT_BYTES].decode("utf-8", "replace").replace("\x00", "\ufffd")
    if text.isascii():
        return text
    return text.encode()[:EXCERPT_BYTES].decode("utf-8", "ignore")  # U+FFFD takes three bytes in place of one


def as_jsonb_text(attempt: AttemptRecord) -> str:
    """Return the attempt as JSON text."""
    return orjson.dumps(attempt.as_json(), option=orjson.OPT_UTC_Z).decode()
