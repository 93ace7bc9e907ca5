"""Replays of missing deliveries: events that an endpoint subscribes to now but has no delivery of."""

import asyncio
from datetime import timedelta
from typing import Final

from pydantic import Field

from spine.kernel.resource import Body, Timestamp
from spine.kernel.routes import CurrentUnit, declares, new_router
from spine.webhooks.endpoint_models import Rate
from spine.webhooks.endpoint_store import find_endpoint
from spine.webhooks.filters import Json, read
from spine.webhooks.replay_walk import Counted, find_missing
from spine.webhooks.replays import CREATED, ReplayOut, count_first_windows, fetcher, start_replay

_FIND_LIMIT: Final = 500

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
async def replay_missing_deliveries(id: str, body: MissingBody, unit: CurrentUnit) -> ReplayOut:
    endpoint = await find_endpoint(unit, id)
    filter: Json = {"endpoint_id": id, "types": endpoint.events, "since": body.since.isoformat()}
    if data := read(endpoint.filter):
        filter["data"] = data
    fetch, before = fetcher(unit), await unit.now() + timedelta(minutes=1)

    async def count(position: str) -> Counted:
        found = await find_missing(fetch, unit.workspace_id, filter, position, before, _FIND_LIMIT)
        await asyncio.sleep(0)  # matching payloads blocks the event loop
        return Counted(len(found.events), found.position)

    return await start_replay(unit, "missing", filter, await count_first_windows(count), body.rate_per_s)
