"""Test events: an example of an event type, sent to one endpoint only."""

from typing import Any, Final

import orjson
from pydantic import BaseModel
from sqlalchemy import text

from spine.kernel import ids
from spine.kernel.errors import Conflict, Unprocessable
from spine.kernel.events import EventType, check_data_size, event_body
from spine.kernel.resource import Body
from spine.kernel.routes import CurrentUnit, declares, new_router
from spine.kernel.unit_of_work import UnitOfWork
from spine.webhooks.deliveries import DeliveryOut, delivery_out, find_delivery
from spine.webhooks.endpoint_models import EndpointStatus
from spine.webhooks.endpoint_store import find_endpoint
from spine.webhooks.event_types import TypeName
from spine.webhooks.schema_examples import MAX_BYTES, MAX_VALUES, ExampleTooLarge, example


class TestBody(Body):
    type: TypeName | None = None


class TestData(BaseModel):
    """What a test event says."""

    endpoint_id: str
    note: str = "A test: nothing happened."


TESTED = EventType(
    "webhook_endpoint.test", TestData, "A test event was asked for; only the endpoint under test gets it."
)

router = new_router("/v1/webhook_endpoints", "webhook_endpoints")

_INSERT_EVENT: Final = text("INSERT INTO spine.events (workspace_id, id, type, body) VALUES (:ws, :id, :type, :body)")
_INSERT_DELIVERY: Final = text(
    "INSERT INTO spine.deliveries_open (workspace_id, id, event_id, type, endpoint_id, due_at, accepted_at) "
    "VALUES (:ws, :delivery, :id, :type, :endpoint, now(), now())"
)


@router.post(
    "/{id}/test",
    openapi_extra=declares("webhooks:write", TESTED),
    summary="Send this endpoint an example of an event type",
)
async def send_test_event(id: str, unit: CurrentUnit, body: TestBody | None = None) -> DeliveryOut:
    endpoint = await find_endpoint(unit, id)
    if endpoint.status != EndpointStatus.ENABLED:
        raise Conflict("the endpoint is disabled; enable it first", code="endpoint_disabled")
    type = (body and body.type) or TESTED.name
    data = orjson.dumps(await _example_data(unit, type, id))
    check_data_size(type, data, unit.platform.http.max_event_bytes, "type")
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
    await unit.session.execute(_INSERT_EVENT, {**values, "body": event})
    await unit.session.execute(_INSERT_DELIVERY, {**values, "delivery": delivery_id, "endpoint": id})
    unit.wake("deliver")
    return delivery_out(await find_delivery(unit, delivery_id))


async def _example_data(unit: UnitOfWork, type: str, endpoint_id: str) -> Any:
    """Return data for an event of the type. Raises Unprocessable.

    The type must be Spine's own or registered, and its schema have an example within the budget.
    """
    if type == TESTED.name:
        return TestData(endpoint_id=endpoint_id).model_dump()
    own = unit.platform.catalogue.types.get(type)
    if own is not None:
        return example(own.data.model_json_schema(mode="serialization"))
    query = text("SELECT schema FROM spine.event_types WHERE workspace_id = :ws AND name = :name")
    registered = (await unit.session.execute(query, {"ws": unit.workspace_id, "name": type})).first()
    if registered is None:
        raise Unprocessable(
            f"there is no event type {type} in the catalogue, nor among the registered ones", param="type"
        )
    try:
        return example(registered.schema or {"type": "object"})
    except ExampleTooLarge as error:
        raise Unprocessable(
            f"the schema of {type} leads to no example of at most {MAX_VALUES} values and {MAX_BYTES} bytes; "
            "give it a small one under `examples`",
            code="example_too_large",
            param="type",
        ) from error
