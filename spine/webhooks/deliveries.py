"""Deliveries: one event at one endpoint, attempt by attempt; the replay of one delivery."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from fastapi import Query
from pydantic import BaseModel, Field
from sqlalchemy import text

from spine.kernel import ids
from spine.kernel.errors import IllegalTransition, NotFound, Unprocessable
from spine.kernel.events import EventType
from spine.kernel.routes import CurrentUnit, Paging, declares, new_router
from spine.kernel.store import Page
from spine.kernel.unit_of_work import UnitOfWork
from spine.webhooks.attempts import EARLIER_ATTEMPTS, KEPT_ATTEMPTS
from spine.webhooks.delivery_page import Source, read_page


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
    attempts: list[AttemptOut] = Field(
        description=f"Those of the last series, and of earlier ones the last {KEPT_ATTEMPTS}."
    )
    series: int
    next_attempt_at: datetime | None
    replay_id: str | None
    created_at: datetime
    closed_at: datetime | None


class DeliveryReplayed(BaseModel):
    """Which delivery was put back."""

    delivery_id: str
    event_id: str
    endpoint_id: str
    series: int


REPLAYED = EventType("delivery.replayed", DeliveryReplayed, "A single delivery was put back by hand.")

router = new_router("/v1", "deliveries")

_COLUMNS: Final = "id, event_id, type, endpoint_id, state, reason, series, attempts, replay_id, created_at, closed_at, next_attempt_at"
_REOPEN: Final = text(f"""
    WITH gone AS (
        DELETE FROM spine.deliveries_closed WHERE workspace_id = :ws AND id = :id RETURNING *
    )
    INSERT INTO spine.deliveries_open
        (workspace_id, id, event_id, type, endpoint_id, state, series, attempts, due_at, accepted_at, created_at, xid)
    SELECT workspace_id, id, event_id, type, endpoint_id, 'pending', series + 1, {EARLIER_ATTEMPTS}, now(), accepted_at,
           created_at, xid
      FROM gone
    RETURNING series
""")  # noqa: S608  # our own expression
_READ_REPLAYABLE: Final = text(
    "SELECT (SELECT deleted_at IS NOT NULL FROM spine.webhook_endpoints WHERE workspace_id = :ws AND id = :endpoint) AS deleted, "
    "(SELECT body IS NOT NULL FROM spine.events WHERE workspace_id = :ws AND id = :event) AS payload"
)


def delivery_out(row: Any) -> DeliveryOut:
    """Return a delivery as callers see it."""
    return DeliveryOut(
        id=row.id,
        event_id=row.event_id,
        event_type=row.type,
        endpoint_id=row.endpoint_id,
        status=DeliveryStatus(row.state),
        reason=row.reason,
        attempts=row.attempts,
        series=row.series,
        next_attempt_at=row.next_attempt_at,
        replay_id=row.replay_id,
        created_at=row.created_at,
        closed_at=row.closed_at,
    )


async def find_delivery(unit: UnitOfWork, id: str) -> Any:
    """Return the row of an open or closed delivery. Raises NotFound."""
    row = None
    if ids.is_id(id, "dlv"):
        query = text(f"SELECT {_COLUMNS} FROM spine.deliveries WHERE workspace_id = :ws AND id = :id")  # noqa: S608  # our own column list
        row = (await unit.session.execute(query, {"ws": unit.workspace_id, "id": id})).first()
    if row is None:
        raise NotFound("there is no such delivery")
    return row


@router.get("/deliveries", openapi_extra=declares("webhooks:read"), summary="List deliveries, newest first")
async def list_deliveries(
    unit: CurrentUnit,
    paging: Paging,
    endpoint_id: Annotated[str | None, Query(max_length=64)] = None,
    event_id: Annotated[str | None, Query(max_length=64)] = None,
    status: DeliveryStatus | None = None,
) -> Page[DeliveryOut]:
    filters = {"endpoint_id": endpoint_id, "event_id": event_id, "state": status and status.value}
    values = {name: value for name, value in filters.items() if value is not None}
    conditions = {name: f"{name} = :{name}" for name in values}
    # Closed deliveries have an index by event and one by endpoint. More indexes on the open ones would cost each delivery time.
    indexed = next((name for name in ("event_id", "endpoint_id") if name in values), None)
    sources = (
        Source("spine.deliveries_open", checked=list(conditions.values())),
        Source(
            "spine.deliveries_closed",
            indexed=[conditions[indexed]] if indexed else [],
            checked=[condition for name, condition in conditions.items() if name != indexed],
        ),
    )
    return await read_page(unit, paging, sources, _COLUMNS, values, delivery_out)


@router.get("/deliveries/{id}", openapi_extra=declares("webhooks:read"), summary="Read a delivery with its attempts")
async def get_delivery(id: str, unit: CurrentUnit) -> DeliveryOut:
    return delivery_out(await find_delivery(unit, id))


@router.post(
    "/deliveries/{id}/replay",
    openapi_extra=declares("webhooks:write", REPLAYED, tool="webhooks_replay_delivery"),
    summary="Deliver once more: same id, same bytes",
)
async def replay_delivery(id: str, unit: CurrentUnit) -> DeliveryOut:
    row = await find_delivery(unit, id)
    await _require_replayable(unit, row)
    series = await unit.session.scalar(_REOPEN, {"ws": unit.workspace_id, "id": id})
    if series is None:  # the delivery is open: not finished yet, or already replayed
        raise IllegalTransition("it is on its way; only dead and delivered ones are replayed", allowed=[])
    unit.emit(
        REPLAYED,
        DeliveryReplayed(delivery_id=id, event_id=row.event_id, endpoint_id=row.endpoint_id, series=series),
        sequence=series,
    )
    unit.wake("deliver")
    return delivery_out(await find_delivery(unit, id))


async def _require_replayable(unit: UnitOfWork, row: Any) -> None:
    values = {"ws": unit.workspace_id, "endpoint": row.endpoint_id, "event": row.event_id}
    found = (await unit.session.execute(_READ_REPLAYABLE, values)).one()
    if found.deleted:
        raise Unprocessable("its endpoint was deleted", code="endpoint_deleted")
    if not found.payload:
        raise Unprocessable("its payload was erased, or is past its retention", code="payload_gone")
