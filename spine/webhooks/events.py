"""Events: the caller's own, one by one and in batches; the forward feed; the catalogue; erasure of a payload."""

from datetime import datetime
from typing import Annotated, Any, Final, Literal

import orjson
from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field
from sqlalchemy import text

from spine.kernel import ids
from spine.kernel.cursors import Position
from spine.kernel.errors import NotFound
from spine.kernel.events import Actor, Catalogue, EventType
from spine.kernel.resource import Body, Timestamp
from spine.kernel.responses import JSON, to_response
from spine.kernel.routes import ApiRoute, CurrentUnit, Paging, RequestContext, declares, request_context
from spine.kernel.store import Page
from spine.kernel.unit_of_work import UnitOfWork
from spine.webhooks.accept import EventIntake, body_of, event_json
from spine.webhooks.event_types import TypeName
from spine.webhooks.patterns import Pattern, type_condition
from spine.webhooks.registered_types import IncomingEvent
from spine.webhooks.schema_examples import example

MAX_BATCH: Final = 1_000
OF_THE_CALLER: Final = "*"
"""What accepting emits: whatever type the body names."""


class EventCreate(Body):
    type: TypeName
    data: dict[str, Any]
    occurred_at: Timestamp | None = None


class EventBatch(Body):
    events: Annotated[list[EventCreate], Field(min_length=1, max_length=MAX_BATCH)]


class EventOut(BaseModel):
    """An event: what its webhooks carry, and when it was accepted."""

    object: Literal["event"] = "event"
    created_at: datetime
    id: str
    type: str
    timestamp: datetime
    workspace_id: str | None = None
    env: Literal["test", "live"] | None = None
    api_version: str | None = None
    request_id: str | None = None
    actor: Actor | None = None
    sequence: int | None = None
    data: dict[str, Any] | None = Field(description="Null once the payload was erased.")
    erased_at: datetime | None = None


class EventsOut(BaseModel):
    data: list[EventOut]


class EventErased(BaseModel):
    """Which event's payload is gone."""

    event_id: str
    event_type: str


class CatalogueEntry(BaseModel):
    """One event type: when it fires, and what its data looks like."""

    name: str
    version: int
    description: str
    schema_: dict[str, Any] | None = Field(
        alias="schema", description="JSON Schema of `data`; null where the caller registered none."
    )
    example: Any


class CatalogueOut(BaseModel):
    data: list[CatalogueEntry]


ERASED = EventType("event.erased", EventErased, "The payload of an event was erased.")

router = APIRouter(prefix="/v1/events", tags=["events"], route_class=ApiRoute)
Context = Annotated[RequestContext, Depends(request_context)]
_INTAKE: Final = EventIntake()


async def _accept(context: RequestContext, events: list[EventCreate], *, batch: bool) -> Response:
    incoming = [IncomingEvent(event.type, event.data, event.occurred_at) for event in events]
    return to_response(*await _INTAKE.accept(await context.accept_request(), incoming, batch=batch))


@router.post(
    "",
    status_code=201,
    response_model=EventOut,
    openapi_extra=declares("events:write", OF_THE_CALLER),
    summary="Send an event of your own",
)
async def create_event(body: EventCreate, context: Context) -> Response:
    return await _accept(context, [body], batch=False)


@router.post(
    "/batch",
    status_code=201,
    response_model=EventsOut,
    openapi_extra=declares("events:write", OF_THE_CALLER),
    summary="Send up to 1,000 events",
)
async def create_events(body: EventBatch, context: Context) -> Response:
    return await _accept(context, body.events, batch=True)


@router.get(
    "/types", openapi_extra=declares("events:read"), summary="The catalogue: every event type, with schema and example"
)
async def list_catalogue(unit: CurrentUnit) -> CatalogueOut:
    rows = await unit.session.execute(
        text(
            "SELECT name, description, schema FROM spine.event_types WHERE workspace_id = :ws AND status = 'active' ORDER BY name"
        ),
        {"ws": unit.workspace_id},
    )
    own = [
        CatalogueEntry(
            name=row.name,
            version=1,
            description=row.description,
            schema=row.schema,
            example=example(row.schema or {"type": "object"}),
        )
        for row in rows
    ]
    return CatalogueOut(data=[*_suite(unit.platform.catalogue), *own])


def _suite(catalogue: Catalogue) -> list[CatalogueEntry]:
    entries = []
    for event in sorted(catalogue.types.values(), key=lambda event: event.name):
        schema = event.data.model_json_schema(mode="serialization")
        entries.append(
            CatalogueEntry(
                name=event.name, version=event.version, description=event.text, schema=schema, example=example(schema)
            )
        )
    return entries


_READ: Final = "cast(cast(:read AS text) AS pg_snapshot)"
_LATER: Final = f"xid >= pg_snapshot_xmin({_READ}) AND NOT pg_visible_in_snapshot(xid, {_READ})"
# Ordered by the number itself: a bare `xid` would name a column of the answer, which is text. The collation is that of the
# feed's own index.
_FEED: Final = """
    SELECT id, type, body, erased_at, xid::text AS transaction, pg_current_snapshot()::text AS snapshot
      FROM spine.events
     WHERE workspace_id COLLATE "POSIX" = :ws {conditions}
     ORDER BY xid, id LIMIT :limit
"""


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
        return await _from_now_on(unit, binding)
    position = unit.platform.cursors.decode(binding, paging.cursor) if paging.cursor else Position("")
    conditions, values = _conditions(position, type)
    query = text(_FEED.format(conditions="".join(f" AND {condition}" for condition in conditions)))
    rows = (await unit.session.execute(query, {"ws": unit.workspace_id, "limit": paging.limit + 1, **values})).all()
    has_more = len(rows) > paging.limit
    page = rows[: paging.limit]
    next_cursor = None
    if page:
        snapshot = position.snapshot or page[0].snapshot
        reached = (
            Position(snapshot, (page[-1].transaction, page[-1].id), position.read_snapshot)
            if has_more
            else Position("", (), snapshot)
        )
        next_cursor = unit.platform.cursors.encode(binding, reached)
    data = b",".join(
        event_json(body_of(row._mapping)) for row in page
    )  # SQLAlchemy's public name for a row as a mapping
    tail = orjson.dumps({"has_more": has_more, "next_cursor": next_cursor})
    return Response(b'{"data":[' + data + b"]," + tail[1:], media_type=JSON)


async def _from_now_on(unit: UnitOfWork, binding: str) -> Response:
    snapshot: str = await unit.session.scalar(text("SELECT pg_current_snapshot()::text"))
    cursor = unit.platform.cursors.encode(binding, Position("", (), snapshot))
    return Response(orjson.dumps({"data": [], "has_more": False, "next_cursor": cursor}), media_type=JSON)


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
    matching, of_types = type_condition(types)
    return [*conditions, *matching], values | of_types


@router.get("/{id}", response_model=EventOut, openapi_extra=declares("events:read"), summary="Read an event")
async def get_event(id: str, unit: CurrentUnit) -> Response:
    row = None
    if ids.is_id(id, "evt"):
        query = text("SELECT id, type, body, erased_at FROM spine.events WHERE workspace_id = :ws AND id = :id")
        row = (await unit.session.execute(query, {"ws": unit.workspace_id, "id": id})).mappings().first()
    if row is None:
        raise NotFound("there is no such event")
    return Response(event_json(body_of(row)), media_type=JSON)


@router.post(
    "/{id}/erase",
    response_model=EventOut,
    openapi_extra=declares("events:write", ERASED),
    summary="Erase an event's payload, for good",
)
async def erase_event(id: str, unit: CurrentUnit) -> EventOut:
    row = None
    if ids.is_id(id, "evt"):
        query = text(
            "UPDATE spine.events e SET body = NULL, erased_at = coalesce(e.erased_at, now()) "
            "FROM (SELECT id, body IS NULL AS gone FROM spine.events WHERE workspace_id = :ws AND id = :id FOR UPDATE) before "
            "WHERE e.workspace_id = :ws AND e.id = :id RETURNING e.id, e.type, e.body, e.erased_at, before.gone"
        )
        row = (await unit.session.execute(query, {"ws": unit.workspace_id, "id": id})).mappings().first()
    if row is None:
        raise NotFound("there is no such event")
    if not row["gone"]:
        unit.emit(ERASED, EventErased(event_id=id, event_type=row["type"]), sequence=1)
    return EventOut.model_validate(orjson.loads(event_json(body_of(row))))
