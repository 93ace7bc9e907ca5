"""What deliveries and message sends share: queue tables whose rows are leased, and attempts as they are kept.

A queue table has `workspace_id` and `id` as its key, `due_at` (when a row may next be claimed) and `leased_by`.
Claiming a row moves its `due_at` to the end of the lease, so a worker that dies needs nobody to clean up after it:
its rows simply come due. Every statement here is fenced by `leased_by`: a worker that lost a lease changes nothing.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson

EXCERPT_CHARS: Final = 8192


@dataclass(frozen=True, slots=True)
class QueueTable:
    """A queue table and the SQL that every one of them gets. Parameters are `(worker, workspace_ids, ids, …)`."""

    name: str

    @property
    def renew(self) -> str:
        """Move the end of my leases to `$4` from now; answers the ids that are still mine.

        A row that is written while this runs goes its way: its result is being recorded, or another worker has it.
        """
        return f"""
            WITH seen AS MATERIALIZED (
                SELECT q.ctid
                  FROM unnest($2::text[], $3::text[]) AS r (workspace_id, id)
                 CROSS JOIN LATERAL (
                       SELECT ctid FROM {self.name} q
                        WHERE q.workspace_id = r.workspace_id AND q.id = r.id AND q.leased_by = $1 LIMIT 1
                   ) q
            )
            UPDATE {self.name} q SET due_at = now() + $4::interval
              FROM seen WHERE q.ctid = seen.ctid AND q.leased_by = $1
            RETURNING q.id
        """  # noqa: S608  # the name is one of ours


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One attempt as the ledger keeps it. Numbers start anew in each series; a replay begins a new series."""

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
        """The element that is appended to a row's `attempts`."""
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
    """A response body as text that jsonb can hold: broken UTF-8 and U+0000, which it refuses, become U+FFFD."""
    if not body:
        return ""
    return body[:EXCERPT_CHARS].decode("utf-8", "replace").replace("\x00", "\ufffd")


def as_jsonb_text(attempt: AttemptRecord) -> str:
    """The attempt as JSON text."""
    return orjson.dumps(attempt.as_json(), option=orjson.OPT_UTC_Z).decode()
