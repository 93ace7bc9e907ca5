"""Secrets of webhook endpoints: creation, and rotation with an overlap in which old and new ones sign."""

from datetime import timedelta
from typing import Final

from sqlalchemy import text

from spine.kernel import store
from spine.kernel.routes import CurrentUnit, declares, new_router
from spine.kernel.unit_of_work import UnitOfWork
from spine.webhooks.endpoint_models import ENDPOINT, UPDATED, EndpointRow, EndpointWithSecret, RotateBody
from spine.webhooks.endpoint_store import endpoint_out, find_endpoint, secret_place
from spine.webhooks.signing import new_private_key, new_secret, public_key

router = new_router("/v1/webhook_endpoints", "webhook_endpoints")

_INSERT: Final = text(
    "INSERT INTO spine.endpoint_secrets (workspace_id, endpoint_id, secret, public_key) VALUES (:ws, :id, :secret, :public)"
)
_EXPIRE: Final = text(
    "UPDATE spine.endpoint_secrets SET expires_at = now() + :overlap "
    "WHERE workspace_id = :ws AND endpoint_id = :id AND expires_at IS NULL"
)


async def create_secret(unit: UnitOfWork, row: EndpointRow) -> EndpointWithSecret:
    """Create a secret for the endpoint's signature scheme. Returns the endpoint with what verifies its deliveries."""
    secret = new_secret() if row.signature == "v1" else new_private_key()
    public = None if row.signature == "v1" else public_key(secret)
    sealed = unit.platform.vault.seal(secret.encode(), secret_place(unit.workspace_id, row.id))
    await unit.session.execute(_INSERT, {"ws": unit.workspace_id, "id": row.id, "secret": sealed, "public": public})
    return EndpointWithSecret(
        **endpoint_out(unit, row).model_dump(), secret=secret if public is None else None, public_key=public
    )


@router.post(
    "/{id}/rotate_secret",
    openapi_extra=declares("webhooks:write", UPDATED, sealed=True),
    summary="Give a webhook endpoint a new secret",
)
async def rotate_webhook_endpoint_secret(
    id: str, unit: CurrentUnit, body: RotateBody | None = None
) -> EndpointWithSecret:
    row = await find_endpoint(unit, id, lock=True)
    overlap = timedelta(seconds=(body or RotateBody()).overlap_s)
    await unit.session.execute(_EXPIRE, {"ws": unit.workspace_id, "id": id, "overlap": overlap})
    row.version += 1  # workers cache secrets by the endpoint's version
    row.updated_at = await unit.now()
    await store.emit_event(unit, ENDPOINT, row, "updated")
    return await create_secret(unit, row)
