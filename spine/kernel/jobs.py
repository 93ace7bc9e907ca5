"""Jobs: work of a product that is due at a time, or that follows an event. A row holds it, so it is never lost.

    schedule (in the caller's transaction) ─► due ─► a worker runs the handler and deletes the row in one transaction

A job is known by its kind and its subject, mostly the id of what it is about: a subject has at most one job of a kind, and
scheduling it again moves it. A handler that raises rolls everything back, and its job is due again later. So a handler's
effects are committed exactly once, however many workers run and whatever dies. Handlers make no outgoing call.

Jobs that follow an event are scheduled by the transaction that emits it: the catalogue lists the consumers of each type.
Their subject is the event (`read_event`).
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson
from sqlalchemy import text

from spine.kernel.unit_of_work import UnitOfWork

_PUT: Final = text(
    "INSERT INTO spine.jobs (workspace_id, kind, subject_id, args, due_at, message_id) VALUES "
    "(:ws, :kind, :subject_id, cast(:args AS jsonb), coalesce(cast(:due_at AS timestamptz), now()), :message_id) "
    "ON CONFLICT (workspace_id, kind, subject_id) DO UPDATE SET args = EXCLUDED.args, due_at = EXCLUDED.due_at, "
    "message_id = EXCLUDED.message_id, failures = 0, error = NULL"
)
_DELETE: Final = text(
    "DELETE FROM spine.jobs WHERE workspace_id = :ws AND kind = :kind AND subject_id = :subject_id RETURNING due_at"
)
_TAKE: Final = text(
    "DELETE FROM spine.jobs WHERE ctid = (SELECT ctid FROM spine.jobs WHERE workspace_id = :ws AND kind = :kind "
    "AND subject_id = :subject_id AND due_at <= now() FOR UPDATE SKIP LOCKED) RETURNING args"
)
_EVENT: Final = text("SELECT body FROM spine.events WHERE workspace_id = :ws AND id = :id")
_FAILED: Final = text(
    "UPDATE spine.jobs SET failures = failures + 1, error = :error, due_at = now() + make_interval(secs => "
    "least(3600, power(4, least(failures, 6)))) WHERE workspace_id = :ws AND kind = :kind AND subject_id = :subject_id"
)


@dataclass(frozen=True, slots=True)
class Job:
    """A job that is due. `args` is what it was scheduled with."""

    kind: str
    subject_id: str
    args: dict[str, Any]


JobHandler = Callable[[UnitOfWork, Job], Awaitable[None]]
"""Does a job's work in the unit's transaction, as the actor `system`. The job's row is already deleted there."""


async def schedule(
    unit: UnitOfWork,
    kind: str,
    subject_id: str,
    due_at: datetime | None = None,
    *,
    args: dict[str, Any] | None = None,
    message_id: str | None = None,
) -> None:
    """Schedule the subject's job of this kind, or move it. Without `due_at` it is due at once.

    With `message_id` it is due at `due_at` or as soon as that message changes, whichever is earlier.
    """
    await unit.session.execute(
        _PUT,
        {
            "ws": unit.workspace_id,
            "kind": kind,
            "subject_id": subject_id,
            "args": orjson.dumps(args or {}).decode(),
            "due_at": due_at,
            "message_id": message_id,
        },
    )
    if due_at is None:
        unit.wake("job")
    else:
        due_s = due_at.timestamp()
        unit.after_commit(lambda: unit.platform.wakeups.wake_at("job", [due_s]))


async def cancel(unit: UnitOfWork, kind: str, subject_id: str) -> datetime | None:
    """Delete the subject's job of this kind. Returns when it was due, or None if there was none."""
    due_at: datetime | None = await unit.session.scalar(
        _DELETE, {"ws": unit.workspace_id, "kind": kind, "subject_id": subject_id}
    )
    return due_at


async def take(unit: UnitOfWork, kind: str, subject_id: str) -> Job | None:
    """Delete the job in the unit's transaction, and return it; None if it is not due or another worker runs it."""
    args = await unit.session.scalar(_TAKE, {"ws": unit.workspace_id, "kind": kind, "subject_id": subject_id})
    return None if args is None else Job(kind, subject_id, args)


async def read_event(unit: UnitOfWork, job: Job) -> dict[str, Any] | None:
    """Return the event that a consumer's job follows, as its webhook shows it; None if it was erased or is past retention."""
    body = await unit.session.scalar(_EVENT, {"ws": unit.workspace_id, "id": job.subject_id})
    return None if body is None else orjson.loads(body)


async def put_off(unit: UnitOfWork, kind: str, subject_id: str, error: str) -> None:
    """Make a job that failed due again: after 1, 4, 16, 64, 256, 1,024 s, and then every hour."""
    await unit.session.execute(
        _FAILED, {"ws": unit.workspace_id, "kind": kind, "subject_id": subject_id, "error": error}
    )
