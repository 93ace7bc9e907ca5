"""Jobs: work of a product that is due at a time, or that follows an event. A row holds it, so it is never lost.

    schedule (in the caller's transaction) ─► due ─► a worker runs the handler and deletes the row in one transaction

A job is known by its kind and its subject, mostly the id of what it is about: a subject has at most one job of a kind, and
scheduling it again moves it. A handler that raises rolls everything back, and its job is due again later. So a handler's
effects are committed exactly once, however many workers run and whatever dies. Handlers make no outgoing call.

Jobs that follow an event are scheduled by the transaction that emits it: the catalogue lists the consumers of each type.
Their subject is the event (`read_event`).
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
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
_PUT_MANY: Final = text(
    "INSERT INTO spine.jobs (workspace_id, kind, subject_id, due_at) SELECT :ws, :kind, subject_id, due_at "
    "FROM unnest(cast(:subject_ids AS text[]), cast(:due_at AS timestamptz[])) AS new (subject_id, due_at)"
)
_DELETE_MANY: Final = text(
    "DELETE FROM spine.jobs WHERE workspace_id = :ws AND kind = :kind AND subject_id = ANY (cast(:subject_ids AS text[]))"
)
_DELETE: Final = text(
    "DELETE FROM spine.jobs WHERE workspace_id = :ws AND kind = :kind AND subject_id = :subject_id RETURNING due_at"
)
_LOCK: Final = text(
    "SELECT 1 FROM spine.jobs WHERE workspace_id = :ws AND kind = :kind AND subject_id = :subject_id FOR UPDATE"
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


async def schedule_many(unit: UnitOfWork, kind: str, due_at: Mapping[str, datetime]) -> None:
    """Schedule the jobs of many subjects, which have none of this kind yet, at these times. One statement does it."""
    if not due_at:
        return
    await unit.session.execute(
        _PUT_MANY,
        {"ws": unit.workspace_id, "kind": kind, "subject_ids": list(due_at), "due_at": list(due_at.values())},
    )
    due_times_s = [at.timestamp() for at in due_at.values()]
    unit.after_commit(lambda: unit.platform.wakeups.wake_at("job", due_times_s))


async def cancel_many(unit: UnitOfWork, kind: str, subject_ids: Sequence[str]) -> None:
    """Delete the jobs of this kind of many subjects."""
    await unit.session.execute(_DELETE_MANY, {"ws": unit.workspace_id, "kind": kind, "subject_ids": list(subject_ids)})


async def cancel(unit: UnitOfWork, kind: str, subject_id: str) -> datetime | None:
    """Delete the subject's job of this kind. Returns when it was due, or None if there was none."""
    due_at: datetime | None = await unit.session.scalar(
        _DELETE, {"ws": unit.workspace_id, "kind": kind, "subject_id": subject_id}
    )
    return due_at


async def lock(unit: UnitOfWork, kind: str, subject_id: str) -> None:
    """Lock the subject's job of this kind, if there is one: whoever will move or cancel it locks it before its subject.

    A worker that runs a job has its row before the handler locks the subject. In the other order the two would deadlock.
    """
    await unit.session.execute(_LOCK, {"ws": unit.workspace_id, "kind": kind, "subject_id": subject_id})


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
