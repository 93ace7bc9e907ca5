"""Webhook endpoints in the database: find one, show one to its owner, and limit their number."""

from typing import Final

import orjson
from sqlalchemy import text

from spine.kernel import store
from spine.kernel.errors import Conflict
from spine.kernel.unit_of_work import UnitOfWork
from spine.webhooks.endpoint_models import ENDPOINT, EndpointData, EndpointOut, EndpointRow


async def find_endpoint(unit: UnitOfWork, id: str, *, lock: bool = False) -> EndpointRow:
    """Return the endpoint with this id. Raises NotFound, also for a deleted endpoint."""
    row: EndpointRow = await store.get(unit, ENDPOINT, id, lock=lock)
    if row.deleted_at is not None:
        raise store.not_found(ENDPOINT)
    return row


def endpoint_out(unit: UnitOfWork, row: EndpointRow) -> EndpointOut:
    """Return the endpoint as its owner sees it, with its headers decrypted."""
    headers = orjson.loads(unit.platform.vault.open(row.headers)) if row.headers is not None else None
    return EndpointOut(**EndpointData.model_validate(row).model_dump(), headers=headers)


_LOCK: Final = text("SELECT pg_advisory_xact_lock(hashtextextended('spine.endpoints ' || :ws, 0))")
_COUNT: Final = text(
    "SELECT count(*) FROM "
    "(SELECT FROM spine.webhook_endpoints WHERE workspace_id = :ws AND deleted_at IS NULL LIMIT :most) found"
)


async def require_endpoint_below_limit(unit: UnitOfWork) -> None:
    """Raise Conflict if the workspace has as many endpoints as it may. Concurrent creations wait for each other."""
    most = unit.platform.http.max_endpoints
    await unit.session.execute(_LOCK, {"ws": unit.workspace_id})
    if (await unit.session.scalar(_COUNT, {"ws": unit.workspace_id, "most": most}) or 0) >= most:
        raise Conflict(
            f"this workspace has {most} webhook endpoints, as many as it may; delete one, "
            "or let the operator raise SPINE_MAX_ENDPOINTS",
            code="endpoint_limit_reached",
        )
