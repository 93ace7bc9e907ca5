"""Send events: the caller's own, one by one or in batches of up to 1,000."""

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from fastapi import Depends, Response
from pydantic import BaseModel, Field

from spine.kernel.events import Actor
from spine.kernel.resource import Body, Timestamp
from spine.kernel.responses import to_response
from spine.kernel.routes import RequestContext, declares, new_router, request_context
from spine.webhooks.accept import EventIntake
from spine.webhooks.event_types import TypeName
from spine.webhooks.registered_types import IncomingEvent

MAX_BATCH: Final = 1_000
ANY_TYPE: Final = "*"
"""The types that these operations emit: any that the body names."""


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


router = new_router("/v1/events", "events")
Context = Annotated[RequestContext, Depends(request_context)]
_INTAKE: Final = EventIntake()


async def _accept(context: RequestContext, events: list[EventCreate], *, batch: bool) -> Response:
    incoming = [IncomingEvent(event.type, event.data, event.occurred_at) for event in events]
    return to_response(*await _INTAKE.accept(await context.accept_request(), incoming, batch=batch))


@router.post(
    "",
    status_code=201,
    response_model=EventOut,
    openapi_extra=declares("events:write", ANY_TYPE),
    summary="Send an event of your own",
)
async def create_event(body: EventCreate, context: Context) -> Response:
    return await _accept(context, [body], batch=False)


@router.post(
    "/batch",
    status_code=201,
    response_model=EventsOut,
    openapi_extra=declares("events:write", ANY_TYPE),
    summary="Send up to 1,000 events",
)
async def create_events(body: EventBatch, context: Context) -> Response:
    return await _accept(context, body.events, batch=True)
