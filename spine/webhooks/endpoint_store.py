"""Webhook endpoints in the database: find one, show one to its owner, and limit their number."""

from typing import Final

import orjson
from sqlalchemy import text

from spine.kernel import store
from spine.kernel.errors import Conflict
from spine.kernel.unit_of_work import UnitOfWork
from spine.kernel.vault import Place
from spine.webhooks.endpoint_models import ENDPOINT, EndpointData, EndpointOut, EndpointRow

HIDDEN: Final = "********"
"""Stands for the value of a custom header, which often is a credential. In a PATCH it keeps the present value."""


async def find_endpoint(unit: UnitOfWork, id: str, *, lock: bool = False) -> EndpointRow:
    """Return the endpoint with this id. Raises NotFound, also for a deleted endpoint."""
    row: EndpointRow = await store.get(unit, ENDPOINT, id, lock=lock)
    if row.deleted_at is not None:
        raise store.not_found(ENDPOINT)
    return row


def headers_place(workspace_id: str, endpoint_id: str) -> Place:
    """Return where the sealed headers of an endpoint are stored."""
    return Place(workspace_id, "webhook_endpoints", endpoint_id, "headers")


def secret_place(workspace_id: str, endpoint_id: str) -> Place:
    """Return where the sealed secrets of an endpoint are stored."""
    return Place(workspace_id, "endpoint_secrets", endpoint_id, "secret")


def open_headers(unit: UnitOfWork, row: EndpointRow) -> dict[str, str]:
    """Return the custom headers of an endpoint in the clear. Raises Unsealable if the operator's key is missing."""
    if row.headers is None:
        return {}
    headers: dict[str, str] = orjson.loads(
        unit.platform.vault.open(row.headers, headers_place(row.workspace_id, row.id))
    )
    return headers


def seal_headers(unit: UnitOfWork, endpoint_id: str, headers: dict[str, str]) -> bytes:
    """Return the custom headers of an endpoint as they are stored."""
    return unit.platform.vault.seal(orjson.dumps(headers), headers_place(unit.workspace_id, endpoint_id))


def endpoint_out(unit: UnitOfWork, row: EndpointRow) -> EndpointOut:
    """Return the endpoint as its owner sees it: with the names of its headers, whose values are never shown again."""
    headers = dict.fromkeys(open_headers(unit, row), HIDDEN) if row.headers is not None else None
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
