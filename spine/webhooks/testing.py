"""A test event for one endpoint, and the public keys of endpoints that sign with ed25519."""

from datetime import datetime
from typing import Any, Final

import orjson
from fastapi import APIRouter, Request
from pydantic import BaseModel
from sqlalchemy import text

from spine.kernel import ids
from spine.kernel.errors import Conflict, NotFound, Unprocessable
from spine.kernel.events import EventType, event_body
from spine.kernel.platform import Platform
from spine.kernel.resource import Body
from spine.kernel.routes import ApiRoute, CurrentUnit, declares
from spine.kernel.unit_of_work import UnitOfWork
from spine.webhooks.deliveries import DeliveryOut, delivery_out, find_delivery
from spine.webhooks.endpoints import EndpointStatus, find
from spine.webhooks.endpoints import router as endpoints_router
from spine.webhooks.event_types import TypeName
from spine.webhooks.schema_examples import example


class TestBody(Body):
    type: TypeName | None = None


class TestData(BaseModel):
    """What a test event says."""

    endpoint_id: str
    note: str = "A test: nothing happened."


class PublicKey(BaseModel):
    """A key that verifies `v1a` signatures."""

    public_key: str
    created_at: datetime
    expires_at: datetime | None


class PublicKeys(BaseModel):
    keys: list[PublicKey]


TESTED = EventType(
    "webhook_endpoint.test", TestData, "A test event was asked for; only the endpoint under test gets it."
)

_PUT: Final = text("INSERT INTO spine.events (workspace_id, id, type, body) VALUES (:ws, :id, :type, :body)")
_DELIVER: Final = text(
    "INSERT INTO spine.deliveries_open (workspace_id, id, event_id, type, endpoint_id, due_at, accepted_at) "
    "VALUES (:ws, :delivery, :id, :type, :endpoint, now(), now())"
)


async def _example_of(unit: UnitOfWork, type: str, endpoint_id: str) -> Any:
    if type == TESTED.name:
        return TestData(endpoint_id=endpoint_id).model_dump()
    suite = unit.platform.catalogue.types.get(type)
    if suite is not None:
        return example(suite.data.model_json_schema(mode="serialization"))
    query = text("SELECT schema FROM spine.event_types WHERE workspace_id = :ws AND name = :name")
    own = (await unit.session.execute(query, {"ws": unit.workspace_id, "name": type})).first()
    if own is None:
        raise Unprocessable(
            f"there is no event type {type} in the catalogue, nor among the registered ones", param="type"
        )
    return example(own.schema or {"type": "object"})


@endpoints_router.post(
    "/{id}/test",
    openapi_extra=declares("webhooks:write", TESTED),
    summary="Send this endpoint an example of an event type",
)
async def send_test_event(id: str, unit: CurrentUnit, body: TestBody | None = None) -> DeliveryOut:
    endpoint = await find(unit, id)
    if endpoint.status != EndpointStatus.ENABLED:
        raise Conflict("the endpoint is disabled; enable it first", code="endpoint_disabled")
    type = (body and body.type) or TESTED.name
    data = orjson.dumps(await _example_of(unit, type, id))
    event_id, delivery_id = ids.mint("evt"), ids.mint("dlv")
    event = event_body(
        id=event_id,
        type=type,
        at=ids.created_at(event_id),
        workspace_id=unit.workspace_id,
        env=unit.caller.env,
        request_id=unit.request_id,
        actor=unit.caller.actor,
        sequence=1,
        data=data,
    )
    values = {"ws": unit.workspace_id, "id": event_id, "type": type}
    await unit.session.execute(_PUT, {**values, "body": event})
    await unit.session.execute(_DELIVER, {**values, "delivery": delivery_id, "endpoint": id})
    unit.wake("deliver")
    return delivery_out(await find_delivery(unit, delivery_id))


router = APIRouter(prefix="/.well-known/webhook-keys", tags=["webhook_endpoints"], route_class=ApiRoute)


@router.get(
    "/{endpoint_id}",
    openapi_extra=declares("", public=True),
    summary="The public keys that verify an endpoint's v1a signatures",
)
async def list_public_keys(endpoint_id: str, request: Request) -> PublicKeys:
    platform: Platform = request.app.state.platform
    rows = (
        await platform.pool.fetch("SELECT * FROM spine.webhook_public_keys($1)", endpoint_id)
        if ids.is_id(endpoint_id, "whe")
        else []
    )
    if not rows:
        raise NotFound("there are no public keys for this endpoint")
    return PublicKeys(keys=[PublicKey(**dict(row)) for row in rows])
