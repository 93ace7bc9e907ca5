"""Read events: the forward feed, and one event by its id."""

from collections.abc import Sequence
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
# With types: looks at `:scan` rows at most, and reads the bodies of only those that match. The first row returned has a null
# id if none matches. Every row says how many were looked at and which was the last.
_FEED_OF_TYPES: Final = """
    WITH scanned AS MATERIALIZED (
        SELECT xid, id, {of_types} AS matches FROM spine.events
         WHERE workspace_id COLLATE "POSIX" = :ws {conditions} ORDER BY xid, id LIMIT :scan
    ), found AS (
        SELECT xid, id FROM scanned WHERE matches ORDER BY xid, id LIMIT :limit
    )
    SELECT e.id, e.type, e.body, e.erased_at, found.xid::text AS transaction, pg_current_snapshot()::text AS snapshot,
           looked_at.count AS looked_at, last.xid::text AS last_transaction, last.id AS last_id
      FROM (SELECT count(*) FROM scanned) looked_at
      LEFT JOIN (SELECT xid, id FROM scanned ORDER BY xid DESC, id DESC LIMIT 1) last ON true
      LEFT JOIN found ON true
      LEFT JOIN LATERAL (SELECT * FROM spine.events e WHERE e.workspace_id = :ws AND e.id = found.id LIMIT 1) e ON true
     ORDER BY found.xid, found.id
"""
_ONE: Final = text("SELECT id, type, body, erased_at FROM spine.events WHERE workspace_id = :ws AND id = :id")


@router.get(
    "",
    response_model=Page[EventOut],
    openapi_extra=declares("events:read", tool="events_list"),
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
    page, reached = await _read(unit, paging, position, type)
    next_cursor = unit.platform.cursors.encode(binding, reached) if reached else None
    # `_mapping` is SQLAlchemy's public name for a row as a mapping.
    data = b",".join(event_json(stored_body(row._mapping)) for row in page)
    tail = orjson.dumps({"has_more": bool(reached and reached.after), "next_cursor": next_cursor})
    return Response(b'{"data":[' + data + b"]," + tail[1:], media_type=JSON)


async def _start_now(unit: UnitOfWork, binding: str) -> Response:
    snapshot: str = await unit.session.scalar(text("SELECT pg_current_snapshot()::text"))
    cursor = unit.platform.cursors.encode(binding, Position("", (), snapshot))
    return Response(orjson.dumps({"data": [], "has_more": False, "next_cursor": cursor}), media_type=JSON)


async def _read(
    unit: UnitOfWork, paging: PageRequest, position: Position, types: list[str] | None
) -> tuple[Sequence[Any], Position | None]:
    """Return the rows of a page and the position to read on from; None if no row was read.

    The position has an `after` if there are further rows now. Otherwise it waits for rows that are accepted later.
    """
    conditions, values = _conditions(position)
    of_types, type_values = type_condition(types)
    values |= {"ws": unit.workspace_id, "limit": paging.limit + 1, "scan": unit.platform.http.max_scan, **type_values}
    query = (_FEED_OF_TYPES if of_types else _FEED).format(
        conditions="".join(f" AND {condition}" for condition in conditions), of_types="".join(of_types)
    )
    rows = (await unit.session.execute(text(query), values)).all()
    if not rows:
        return [], None
    snapshot = position.snapshot or rows[0].snapshot
    found = [row for row in rows if row.id is not None]
    page = found[: paging.limit]
    if len(found) > paging.limit:
        return page, Position(snapshot, (page[-1].transaction, page[-1].id), position.read_snapshot)
    if of_types and rows[0].looked_at == values["scan"]:
        return page, Position(snapshot, (rows[0].last_transaction, rows[0].last_id), position.read_snapshot)
    if of_types and not rows[0].looked_at:
        return page, None
    return page, Position("", (), snapshot)


def _conditions(position: Position) -> tuple[list[str], dict[str, Any]]:
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
    return conditions, values


@router.get("/{id}", response_model=EventOut, openapi_extra=declares("events:read"), summary="Read an event")
async def get_event(id: str, unit: CurrentUnit) -> Response:
    row = None
    if ids.is_id(id, "evt"):
        row = (await unit.session.execute(_ONE, {"ws": unit.workspace_id, "id": id})).mappings().first()
    if row is None:
        raise NotFound("there is no such event")
    return Response(event_json(stored_body(row)), media_type=JSON)
