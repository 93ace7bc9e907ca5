"""Replays of missing deliveries: events that an endpoint subscribes to now but has no delivery of."""

import asyncio
from typing import Any, Final

from pydantic import Field
from sqlalchemy import text

from spine.kernel.resource import Body, Timestamp
from spine.kernel.routes import CurrentUnit, declares, new_router
from spine.kernel.unit_of_work import UnitOfWork
from spine.webhooks.endpoint_models import Rate
from spine.webhooks.endpoint_store import find_endpoint
from spine.webhooks.filters import Json, Payload, read
from spine.webhooks.patterns import type_condition
from spine.webhooks.replays import CREATED, ReplayOut, start_replay

_READ_AT_ONCE: Final = 50
_STEPS_AT_ONCE: Final = 10_000

# Events of the endpoint's types without a delivery to it, except those that the relay has not read yet.
_MISSING: Final = """
    SELECT {what} FROM spine.events e
     WHERE workspace_id = :ws AND accepted_at >= :since AND body IS NOT NULL {conditions}
       AND NOT EXISTS (SELECT FROM spine.deliveries d WHERE d.workspace_id = :ws AND d.event_id = e.id AND d.endpoint_id = :endpoint)
       AND NOT EXISTS (SELECT FROM spine.outbox o WHERE o.workspace_id = :ws AND o.event_id = e.id)
"""

router = new_router("/v1/webhook_endpoints", "webhook_endpoints")


class MissingBody(Body):
    since: Timestamp = Field(description="Events accepted at this time or later.")
    rate_per_s: Rate | None = None


@router.post(
    "/{id}/replay_missing",
    status_code=201,
    openapi_extra=declares("webhooks:write", CREATED, listed_at="/v1/replays"),
    summary="Deliver the events that this endpoint never got",
)
async def replay_missing(id: str, body: MissingBody, unit: CurrentUnit) -> ReplayOut:
    endpoint = await find_endpoint(unit, id)
    data = read(endpoint.filter)
    conditions, type_values = type_condition(endpoint.events)
    query = _MISSING.format(
        what="body" if data else "count(*)", conditions="".join(f" AND {condition}" for condition in conditions)
    )
    values = {"ws": unit.workspace_id, "since": body.since, "endpoint": id, **type_values}
    total = await (_count_matching(unit, data, query, values) if data else unit.session.scalar(text(query), values))
    filter: Json = {"endpoint_id": id, "types": endpoint.events, "since": body.since.isoformat()}
    if data:
        filter["data"] = data
    return await start_replay(unit, "missing", filter, total or 0, body.rate_per_s)


async def _count_matching(unit: UnitOfWork, data: Json, query: str, values: dict[str, Any]) -> int:
    """Count the bodies of the query that match the filter. Gives other requests a turn every 10,000 steps."""
    total = steps = 0
    bodies = await unit.session.stream_scalars(text(query), values, execution_options={"yield_per": _READ_AT_ONCE})
    async for body in bodies:
        payload = Payload(body)
        total += payload.meets(data)
        steps += payload.spent
        if steps > _STEPS_AT_ONCE:
            await asyncio.sleep(0)
            steps = 0
    return total
