"""Deliveries and dead letters: what became of an event at an endpoint, attempt by attempt; replay of one."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from fastapi import Query
from pydantic import BaseModel, Field
from sqlalchemy import text

from spine.kernel import ids
from spine.kernel.cursors import Position
from spine.kernel.errors import IllegalTransition, NotFound, Unprocessable
from spine.kernel.events import EventType
from spine.kernel.resource import Timestamp
from spine.kernel.routes import CurrentUnit, PageRequest, Paging, declares, new_router
from spine.kernel.store import Page
from spine.kernel.unit_of_work import UnitOfWork
from spine.webhooks.patterns import Pattern, type_condition


class DeliveryStatus(StrEnum):
    """pending → delivered; pending → retrying → delivered or dead; dead → pending by replay; held while its endpoint is disabled."""

    PENDING = "pending"
    RETRYING = "retrying"
    DELIVERED = "delivered"
    DEAD = "dead"
    HELD = "held"


class AttemptOut(BaseModel):
    """One call to the endpoint."""

    number: int = Field(description="Counts from 1, anew in each series.")
    series: int = Field(description="1 for the first round of attempts; one more with each replay.")
    started_at: datetime
    ended_at: datetime
    status_code: int | None
    error: str | None = Field(description="Why it failed; null for a delivered one.")
    response_body: str | None = Field(description="The first 8 KiB of the answer.")
    retry_after_s: float | None = None
    next_attempt_at: datetime | None = None


class DeliveryOut(BaseModel):
    """An event on its way to one endpoint."""

    id: str
    object: Literal["delivery"] = "delivery"
    event_id: str
    event_type: str
    endpoint_id: str
    status: DeliveryStatus
    reason: str | None = Field(description="Why it is dead.")
    attempts: list[AttemptOut]
    series: int
    next_attempt_at: datetime | None
    replay_id: str | None
    created_at: datetime
    closed_at: datetime | None


class DeadLetterOut(BaseModel):
    """A delivery that died: what the endpoint last said, and why we gave up."""

    id: str
    object: Literal["dead_letter"] = "dead_letter"
    delivery_id: str
    event_id: str
    event_type: str
    endpoint_id: str
    reason: str
    last_status_code: int | None
    last_error: str | None
    last_response_body: str | None
    attempts: int
    died_at: datetime


class DeadLettered(BaseModel):
    """What a dead letter's event tells."""

    delivery_id: str
    event_id: str
    event_type: str
    endpoint_id: str
    reason: str
    attempts: int
    last_status_code: int | None
    last_error: str | None
    died_at: datetime


class DeliveryReplayed(BaseModel):
    """Which delivery was put back."""

    delivery_id: str
    event_id: str
    endpoint_id: str
    series: int


DEAD_LETTERED = EventType(
    "delivery.dead_lettered", DeadLettered, "A delivery died; every endpoint but the one that failed is told."
)
REPLAYED = EventType("delivery.replayed", DeliveryReplayed, "A single delivery was put back by hand.")

router = new_router("/v1", "deliveries")

_COLUMNS: Final = "id, event_id, type, endpoint_id, state, reason, series, attempts, replay_id, created_at, closed_at, next_attempt_at"
_PAGE: Final = """
    SELECT {columns}, pg_current_snapshot()::text AS snapshot
      FROM {table}
     WHERE workspace_id = :ws {conditions}
     ORDER BY id DESC LIMIT :limit
"""


def delivery_out(row: Any) -> DeliveryOut:
    """A delivery as callers see it."""
    attempts = row.attempts
    return DeliveryOut(
        id=row.id,
        event_id=row.event_id,
        event_type=row.type,
        endpoint_id=row.endpoint_id,
        status=DeliveryStatus(row.state),
        reason=row.reason,
        attempts=attempts,
        series=row.series,
        next_attempt_at=row.next_attempt_at,
        replay_id=row.replay_id,
        created_at=row.created_at,
        closed_at=row.closed_at,
    )


def _dead_letter_out(row: Any) -> DeadLetterOut:
    last = row.attempts[-1] if row.attempts else {}
    return DeadLetterOut(
        id=row.id,
        delivery_id=row.id,
        event_id=row.event_id,
        event_type=row.type,
        endpoint_id=row.endpoint_id,
        reason=row.reason,
        last_status_code=last.get("status_code"),
        last_error=last.get("error"),
        last_response_body=last.get("response_body"),
        attempts=len(row.attempts),
        died_at=row.closed_at,
    )


async def _page(
    unit: UnitOfWork,
    paging: PageRequest,
    table: str,
    columns: str,
    conditions: list[str],
    values: dict[str, Any],
    out: Any,
) -> Page[Any]:
    binding = f"{unit.workspace_id} {unit.path} {sorted((name, str(value)) for name, value in values.items())}"
    snapshot = None
    if paging.cursor:
        position = unit.platform.cursors.decode(binding, paging.cursor)
        snapshot = position.snapshot
        conditions = [
            *conditions,
            "id < :after",
            "pg_visible_in_snapshot(xid, cast(cast(:snapshot AS text) AS pg_snapshot))",
        ]
        values = values | {"after": position.after[0], "snapshot": snapshot}
    query = text(
        _PAGE.format(columns=columns, table=table, conditions="".join(f" AND {condition}" for condition in conditions))
    )
    rows = (await unit.session.execute(query, {"ws": unit.workspace_id, "limit": paging.limit + 1, **values})).all()
    page = rows[: paging.limit]
    has_more = len(rows) > paging.limit
    next_cursor = (
        unit.platform.cursors.encode(binding, Position(snapshot or rows[0].snapshot, (page[-1].id,)))
        if has_more
        else None
    )
    return Page(data=[out(row) for row in page], has_more=has_more, next_cursor=next_cursor)


@router.get("/deliveries", openapi_extra=declares("webhooks:read"), summary="List deliveries, newest first")
async def list_deliveries(
    unit: CurrentUnit,
    paging: Paging,
    endpoint_id: Annotated[str | None, Query(max_length=64)] = None,
    event_id: Annotated[str | None, Query(max_length=64)] = None,
    status: DeliveryStatus | None = None,
) -> Page[DeliveryOut]:
    wanted = {"endpoint_id": endpoint_id, "event_id": event_id, "state": status and status.value}
    values = {name: value for name, value in wanted.items() if value is not None}
    return await _page(
        unit, paging, "spine.deliveries", _COLUMNS, [f"{name} = :{name}" for name in values], values, delivery_out
    )


async def find_delivery(unit: UnitOfWork, id: str) -> Any:
    """The delivery's row, open or closed. Raises NotFound."""
    row = None
    if ids.is_id(id, "dlv"):
        query = text(f"SELECT {_COLUMNS} FROM spine.deliveries WHERE workspace_id = :ws AND id = :id")  # noqa: S608  # our own column list
        row = (await unit.session.execute(query, {"ws": unit.workspace_id, "id": id})).first()
    if row is None:
        raise NotFound("there is no such delivery")
    return row


@router.get("/deliveries/{id}", openapi_extra=declares("webhooks:read"), summary="Read a delivery with its attempts")
async def get_delivery(id: str, unit: CurrentUnit) -> DeliveryOut:
    return delivery_out(await find_delivery(unit, id))


_REOPEN: Final = text("""
    WITH gone AS (
        DELETE FROM spine.deliveries_closed WHERE workspace_id = :ws AND id = :id RETURNING *
    )
    INSERT INTO spine.deliveries_open
        (workspace_id, id, event_id, type, endpoint_id, state, series, attempts, due_at, accepted_at, created_at, xid)
    SELECT workspace_id, id, event_id, type, endpoint_id, 'pending', series + 1, attempts, now(), accepted_at, created_at, xid FROM gone
    RETURNING series
""")


@router.post(
    "/deliveries/{id}/replay",
    openapi_extra=declares("webhooks:write", REPLAYED),
    summary="Deliver once more: same id, same bytes",
)
async def replay_delivery(id: str, unit: CurrentUnit) -> DeliveryOut:
    row = await find_delivery(unit, id)
    _refuse_unplayable(await _endpoint_and_payload(unit, row))
    series = await unit.session.scalar(_REOPEN, {"ws": unit.workspace_id, "id": id})
    if series is None:  # it is open: never tried to its end yet, or put back already
        raise IllegalTransition("it is on its way; only dead and delivered ones are replayed", allowed=[])
    unit.emit(
        REPLAYED,
        DeliveryReplayed(delivery_id=id, event_id=row.event_id, endpoint_id=row.endpoint_id, series=series),
        sequence=series,
    )
    unit.wake("deliver")
    return delivery_out(await find_delivery(unit, id))


async def _endpoint_and_payload(unit: UnitOfWork, row: Any) -> Any:
    query = text(
        "SELECT (SELECT deleted_at IS NOT NULL FROM spine.webhook_endpoints WHERE workspace_id = :ws AND id = :endpoint) AS deleted, "
        "(SELECT body IS NOT NULL FROM spine.events WHERE workspace_id = :ws AND id = :event) AS payload"
    )
    return (
        await unit.session.execute(query, {"ws": unit.workspace_id, "endpoint": row.endpoint_id, "event": row.event_id})
    ).one()


def _refuse_unplayable(found: Any) -> None:
    if found.deleted:
        raise Unprocessable("its endpoint was deleted", code="endpoint_deleted")
    if not found.payload:
        raise Unprocessable("its payload was erased, or is past its retention", code="payload_gone")


@router.get("/dead_letters", openapi_extra=declares("webhooks:read"), summary="List dead letters, newest first")
async def list_dead_letters(
    unit: CurrentUnit,
    paging: Paging,
    endpoint_id: Annotated[str | None, Query(max_length=64)] = None,
    type: Annotated[list[Pattern] | None, Query(max_length=50)] = None,
    since: Annotated[Timestamp | None, Query(description="Events accepted at this time or later.")] = None,
    until: Annotated[Timestamp | None, Query(description="Events accepted before this time.")] = None,
) -> Page[DeadLetterOut]:
    conditions, values = closed_conditions(endpoint_id, type, since, until)
    columns = "id, event_id, type, endpoint_id, reason, attempts, closed_at"
    return await _page(
        unit, paging, "spine.deliveries_closed", columns, ["state = 'dead'", *conditions], values, _dead_letter_out
    )


def closed_conditions(
    endpoint_id: str | None, types: list[str] | None, since: datetime | None, until: datetime | None
) -> tuple[list[str], dict[str, Any]]:
    """SQL conditions on closed deliveries, and their values: what dead letters and replays are filtered by."""
    conditions: list[str] = []
    values: dict[str, Any] = {}
    if endpoint_id is not None:
        conditions.append("endpoint_id = :endpoint_id")
        values["endpoint_id"] = endpoint_id
    matching, of_types = type_condition(types)
    conditions += matching
    values |= of_types
    if since is not None:
        conditions.append("accepted_at >= :since")
        values["since"] = since
    if until is not None:
        conditions.append("accepted_at < :until")
        values["until"] = until
    return conditions, values


@router.get("/dead_letters/{id}", openapi_extra=declares("webhooks:read"), summary="Read a dead letter")
async def get_dead_letter(id: str, unit: CurrentUnit) -> DeadLetterOut:
    row = await find_delivery(unit, id)
    if row.state != DeliveryStatus.DEAD:
        raise NotFound("there is no such dead letter")
    return _dead_letter_out(row)
