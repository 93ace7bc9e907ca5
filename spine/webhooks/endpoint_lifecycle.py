"""Enabling and deleting webhook endpoints, and what happens to their deliveries (promise 4)."""

from typing import Final

from sqlalchemy import text

from spine.kernel import store
from spine.kernel.errors import IllegalTransition
from spine.kernel.resource import DeletedOut
from spine.kernel.routes import CurrentUnit, declares, new_router
from spine.webhooks.endpoint_deliveries import follow_endpoint
from spine.webhooks.endpoint_models import (
    DELETED,
    ENDPOINT,
    UPDATED,
    EnableBody,
    EndpointOut,
    EndpointStatus,
)
from spine.webhooks.endpoint_store import endpoint_out, find_endpoint
from spine.webhooks.subscriptions import replace_subscriptions

router = new_router("/v1/webhook_endpoints", "webhook_endpoints")

_RESET_HEALTH: Final = text(
    "UPDATE spine.endpoint_health SET failing_since = NULL WHERE workspace_id = :ws AND endpoint_id = :id"
)


@router.delete("/{id}", openapi_extra=declares("webhooks:write", DELETED), summary="Delete a webhook endpoint")
async def delete_endpoint(id: str, unit: CurrentUnit) -> DeletedOut:
    row = await find_endpoint(unit, id, lock=True)
    await replace_subscriptions(unit, id, [], None)
    await store.change(unit, ENDPOINT, row, {"deleted_at": await unit.now()})
    await follow_endpoint(unit, id)
    await store.emit_event(unit, ENDPOINT, row, "deleted")
    return DeletedOut(id=id, object="webhook_endpoint")


@router.post(
    "/{id}/enable", openapi_extra=declares("webhooks:write", UPDATED), summary="Enable a disabled webhook endpoint"
)
async def enable_endpoint(id: str, unit: CurrentUnit, body: EnableBody | None = None) -> EndpointOut:
    options = body or EnableBody()
    row = await find_endpoint(unit, id, lock=True)
    if row.status == EndpointStatus.ENABLED:
        raise IllegalTransition("it is enabled already", allowed=[EndpointStatus.DISABLED])
    await store.change(
        unit, ENDPOINT, row, {"status": EndpointStatus.ENABLED, "disabled_reason": None, "disabled_at": None}
    )
    await follow_endpoint(unit, id, None if options.held == "all" else options.since or await unit.now())
    await unit.session.execute(_RESET_HEALTH, {"ws": unit.workspace_id, "id": id})
    await store.emit_event(unit, ENDPOINT, row, "updated")
    return endpoint_out(unit, row)
