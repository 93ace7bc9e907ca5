"""Timelines of contacts, projects, messages and others: what happened, in order, and who did it. Entries are only appended."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import orjson
from pydantic import BaseModel, Field
from sqlalchemy import text

from spine.kernel import ids
from spine.kernel.cursors import Position
from spine.kernel.events import Actor
from spine.kernel.routes import PageRequest
from spine.kernel.store import Page
from spine.kernel.unit_of_work import UnitOfWork

_INSERT: Final = text(
    "INSERT INTO spine.timeline_entries (workspace_id, id, subject_id, kind, actor, changes, detail, request_id) VALUES "
    "(:ws, :id, :subject_id, :kind, cast(:actor AS jsonb), cast(:changes AS jsonb), cast(:detail AS jsonb), :request_id)"
)
_PAGE: Final = """
    SELECT id, subject_id, kind, actor, changes, detail, request_id, at, seq, pg_current_snapshot()::text AS snapshot
      FROM spine.timeline_entries
     WHERE workspace_id = :ws AND subject_id = :subject_id {later}
     ORDER BY seq LIMIT :limit
"""
_LATER: Final = (
    "AND seq > cast(cast(:after AS text) AS bigint) "
    "AND pg_visible_in_snapshot(xid, cast(cast(:snapshot AS text) AS pg_snapshot))"
)


class Change(BaseModel):
    """One field that was given another value."""

    field: str
    old: Any
    new: Any


class TimelineEntry(BaseModel):
    """One thing that happened."""

    id: str
    object: str = "timeline_entry"
    subject_id: str
    kind: str = Field(description="What happened.")
    actor: Actor
    changes: list[Change] = Field(description="Fields that changed, where any did.")
    detail: dict[str, Any] = Field(description="What else belongs to it: a decision's reasons, an attempt's outcome.")
    request_id: str
    at: datetime


@dataclass(frozen=True, slots=True)
class NewEntry:
    """An entry to append: what happened, the fields that changed, and what else belongs to it."""

    kind: str
    changes: Sequence[Change] = ()
    detail: dict[str, Any] = field(default_factory=dict)


async def append(
    unit: UnitOfWork,
    subject_id: str,
    kind: str,
    *,
    changes: Sequence[Change] = (),
    detail: dict[str, Any] | None = None,
) -> None:
    """Append an entry to a subject's timeline, in the unit's transaction, with its caller as the actor."""
    await append_all(unit, subject_id, [NewEntry(kind, changes, detail or {})])


async def append_all(unit: UnitOfWork, subject_id: str, entries: Sequence[NewEntry]) -> None:
    """Append entries to a subject's timeline in one batch, in this order."""
    await unit.session.execute(
        _INSERT,
        [
            {
                "ws": unit.workspace_id,
                "id": ids.mint(ids.PREFIXES["timeline_entry"]),
                "subject_id": subject_id,
                "kind": entry.kind,
                "actor": unit.caller.actor.model_dump_json(),
                "changes": orjson.dumps([change.model_dump(mode="json") for change in entry.changes]).decode(),
                "detail": orjson.dumps(entry.detail).decode(),
                "request_id": unit.request_id,
            }
            for entry in entries
        ],
    )


async def page(unit: UnitOfWork, subject_id: str, paging: PageRequest) -> Page[TimelineEntry]:
    """Return one page of a subject's timeline, oldest first. Raises BadRequest `invalid_cursor`."""
    binding = f"{unit.workspace_id} {unit.path}"
    values: dict[str, Any] = {"ws": unit.workspace_id, "subject_id": subject_id, "limit": paging.limit + 1}
    later, snapshot = "", None
    if paging.cursor is not None:
        position = unit.platform.cursors.decode(binding, paging.cursor)
        later, snapshot = _LATER, position.snapshot
        values |= {"after": position.after[0], "snapshot": snapshot}
    rows = (await unit.session.execute(text(_PAGE.format(later=later)), values)).mappings().all()
    shown, has_more = rows[: paging.limit], len(rows) > paging.limit
    next_cursor = None
    if has_more:
        next_cursor = unit.platform.cursors.encode(
            binding, Position(snapshot or rows[0]["snapshot"], (str(shown[-1]["seq"]),))
        )
    return Page(
        data=[TimelineEntry.model_validate(dict(row)) for row in shown], has_more=has_more, next_cursor=next_cursor
    )
