"""Send events: the caller's own, one by one or in batches of up to 1,000."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field

from spine.kernel.accept import AcceptRequest
from spine.kernel.accept_routes import AcceptRoute, add_accept_routes
from spine.kernel.events import Actor
from spine.kernel.idempotency import StoredResponse
from spine.kernel.resource import Body, Timestamp
from spine.kernel.routes import declares, new_router
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
_INTAKE: Final = EventIntake()


async def _accept(request: AcceptRequest, events: Sequence[EventCreate], *, batch: bool) -> tuple[StoredResponse, bool]:
    incoming = [IncomingEvent(event.type, event.data, event.occurred_at) for event in events]
    return await _INTAKE.accept(request, incoming, batch=batch)


add_accept_routes(
    router,
    _accept,
    AcceptRoute("create_event", EventCreate, EventOut, "Send an event of your own"),
    AcceptRoute("create_events", EventBatch, EventsOut, "Send up to 1,000 events"),
    items_of=lambda body: body.events,
    extra=declares("events:write", ANY_TYPE, tool="events_publish"),
)
