"""Read events: the forward feed, and one event by its id."""

from typing import Annotated, Any, Final, Literal

import orjson
from fastapi import Query, Response
from sqlalchemy import text

from spine.kernel import ids
from spine.kernel.cursors import Position
from spine.kernel.errors import NotFound
from spine.kernel.responses import JSON
from spine.kernel.routes import CurrentUnit, PageRequest, Paging, declares, new_router
from spine.kernel.store import Page
from spine.kernel.unit_of_work import UnitOfWork
from spine.webhooks.accept import event_json, stored_body
from spine.webhooks.events import EventOut
from spine.webhooks.patterns import Pattern, type_condition

router = new_router("/v1/events", "events")

_READ: Final = "cast(cast(:read AS text) AS pg_snapshot)"
_LATER: Final = f"xid >= pg_snapshot_xmin({_READ}) AND NOT pg_visible_in_snapshot(xid, {_READ})"
# The output column of the transaction has its own name, because ORDER BY xid would sort by an output column `xid`, which is
# text. The collation is that of the feed's index.
_FEED: Final = """
    SELECT id, type, body, erased_at, xid::text AS transaction, pg_current_snapshot()::text AS snapshot
      FROM spine.events
     WHERE workspace_id COLLATE "POSIX" = :ws {conditions}
     ORDER BY xid, id LIMIT :limit
"""
_ONE: Final = text("SELECT id, type, body, erased_at FROM spine.events WHERE workspace_id = :ws AND id = :id")


@router.get(
    "",
    response_model=Page[EventOut],
    openapi_extra=declares("events:read"),
    summary="The feed: events oldest first, from where you left off",
)
async def list_events(
    unit: CurrentUnit,
    paging: Paging,
    type: Annotated[
        list[Pattern] | None,
        Query(max_length=50, description="Only these types: exact, a family (`ticket.*`), or all (`*`)."),
    ] = None,
    start: Annotated[
        Literal["oldest", "now"],
        Query(description="Where a traversal without a cursor begins; `now` answers the cursor of what comes after."),
    ] = "oldest",
) -> Response:
    binding = f"{unit.workspace_id} {unit.path} {sorted(type or [])}"
    if start == "now" and not paging.cursor:
        return await _start_now(unit, binding)
    position = unit.platform.cursors.decode(binding, paging.cursor) if paging.cursor else Position("")
    rows = await _read(unit, paging, position, type)
    page, has_more = rows[: paging.limit], len(rows) > paging.limit
    next_cursor = None
    if page:
        snapshot = position.snapshot or page[0].snapshot
        reached = (
            Position(snapshot, (page[-1].transaction, page[-1].id), position.read_snapshot)
            if has_more
            else Position("", (), snapshot)
        )
        next_cursor = unit.platform.cursors.encode(binding, reached)
    # `_mapping` is SQLAlchemy's public name for a row as a mapping.
    data = b",".join(event_json(stored_body(row._mapping)) for row in page)
    tail = orjson.dumps({"has_more": has_more, "next_cursor": next_cursor})
    return Response(b'{"data":[' + data + b"]," + tail[1:], media_type=JSON)


async def _start_now(unit: UnitOfWork, binding: str) -> Response:
    snapshot: str = await unit.session.scalar(text("SELECT pg_current_snapshot()::text"))
    cursor = unit.platform.cursors.encode(binding, Position("", (), snapshot))
    return Response(orjson.dumps({"data": [], "has_more": False, "next_cursor": cursor}), media_type=JSON)


async def _read(unit: UnitOfWork, paging: PageRequest, position: Position, types: list[str] | None) -> Any:
    """Return the rows of a page, and one more if there are further pages."""
    conditions, values = _conditions(position, types)
    query = text(_FEED.format(conditions="".join(f" AND {condition}" for condition in conditions)))
    return (await unit.session.execute(query, {"ws": unit.workspace_id, "limit": paging.limit + 1, **values})).all()


def _conditions(position: Position, types: list[str] | None) -> tuple[list[str], dict[str, Any]]:
    conditions: list[str] = []
    values: dict[str, Any] = {}
    if position.snapshot:
        conditions.append("pg_visible_in_snapshot(xid, cast(cast(:snapshot AS text) AS pg_snapshot))")
        values["snapshot"] = position.snapshot
    if position.read_snapshot:
        conditions.append(_LATER)
        values["read"] = position.read_snapshot
    if position.after:
        conditions.append("(xid, id) > (cast(cast(:xid AS text) AS xid8), :after)")
        values |= {"xid": position.after[0], "after": position.after[1]}
    type_conditions, type_values = type_condition(types)
    return [*conditions, *type_conditions], values | type_values


@router.get("/{id}", response_model=EventOut, openapi_extra=declares("events:read"), summary="Read an event")
async def get_event(id: str, unit: CurrentUnit) -> Response:
    row = None
    if ids.is_id(id, "evt"):
        row = (await unit.session.execute(_ONE, {"ws": unit.workspace_id, "id": id})).mappings().first()
    if row is None:
        raise NotFound("there is no such event")
    return Response(event_json(stored_body(row)), media_type=JSON)
