"""Erasure of an event's payload, for good (promise 7)."""

from typing import Final

import orjson
from pydantic import BaseModel
from sqlalchemy import text

from spine.kernel import ids
from spine.kernel.errors import NotFound
from spine.kernel.events import EventType
from spine.kernel.routes import CurrentUnit, declares, new_router
from spine.webhooks.accept import event_json, stored_body
from spine.webhooks.events import EventOut


class EventErased(BaseModel):
    """Which event's payload is gone."""

    event_id: str
    event_type: str


ERASED = EventType("event.erased", EventErased, "The payload of an event was erased.")

router = new_router("/v1/events", "events")

_ERASE: Final = text(
    "UPDATE spine.events e SET body = NULL, erased_at = coalesce(e.erased_at, now()) "
    "FROM (SELECT id, body IS NULL AS gone FROM spine.events WHERE workspace_id = :ws AND id = :id FOR UPDATE) before "
    "WHERE e.workspace_id = :ws AND e.id = :id RETURNING e.id, e.type, e.body, e.erased_at, before.gone"
)


@router.post(
    "/{id}/erase",
    response_model=EventOut,
    openapi_extra=declares("events:write", ERASED),
    summary="Erase an event's payload, for good",
)
async def erase_event(id: str, unit: CurrentUnit) -> EventOut:
    row = None
    if ids.is_id(id, "evt"):
        row = (await unit.session.execute(_ERASE, {"ws": unit.workspace_id, "id": id})).mappings().first()
    if row is None:
        raise NotFound("there is no such event")
    if not row["gone"]:
        unit.emit(ERASED, EventErased(event_id=id, event_type=row["type"]), sequence=1)
    return EventOut.model_validate(orjson.loads(event_json(stored_body(row))))
