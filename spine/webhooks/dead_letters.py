"""Dead letters: deliveries that failed for good, with the last response and the reason."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import BaseModel, Field

from spine.kernel.errors import NotFound
from spine.kernel.events import EventType
from spine.kernel.resource import Timestamp
from spine.kernel.routes import CurrentUnit, Paging, declares, new_router
from spine.kernel.store import Page
from spine.webhooks.deliveries import DeliveryStatus, find_delivery
from spine.webhooks.delivery_page import Source, read_page
from spine.webhooks.patterns import Pattern, type_condition


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
    attempts: int = Field(description="Attempts that the delivery lists.")
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


DEAD_LETTERED = EventType(
    "delivery.dead_lettered", DeadLettered, "A delivery died; every endpoint but the one that failed is told."
)

router = new_router("/v1", "deliveries")


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


def closed_conditions(
    endpoint_id: str | None, types: list[str] | None, since: datetime | None, until: datetime | None
) -> tuple[list[str], dict[str, Any]]:
    """Return SQL conditions on closed deliveries and their values, for the filters of dead letters and replays."""
    conditions: list[str] = []
    values: dict[str, Any] = {}
    if endpoint_id is not None:
        conditions.append("endpoint_id = :endpoint_id")
        values["endpoint_id"] = endpoint_id
    type_conditions, type_values = type_condition(types)
    conditions += type_conditions
    values |= type_values
    if since is not None:
        conditions.append("accepted_at >= :since")
        values["since"] = since
    if until is not None:
        conditions.append("accepted_at < :until")
        values["until"] = until
    return conditions, values


@router.get(
    "/dead_letters",
    openapi_extra=declares("webhooks:read", tool="webhooks_list_dead_letters"),
    summary="List dead letters, newest first",
)
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
    source = Source("spine.deliveries_closed", indexed=["state = 'dead'"], checked=conditions)
    return await read_page(unit, paging, [source], columns, values, _dead_letter_out)


@router.get("/dead_letters/{id}", openapi_extra=declares("webhooks:read"), summary="Read a dead letter")
async def get_dead_letter(id: str, unit: CurrentUnit) -> DeadLetterOut:
    row = await find_delivery(unit, id)
    if row.state != DeliveryStatus.DEAD:
        raise NotFound("there is no such dead letter")
    return _dead_letter_out(row)
