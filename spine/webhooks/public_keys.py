"""Public keys of endpoints that sign with ed25519 (`v1a`), readable without an API key."""

from datetime import datetime

from fastapi import Request
from pydantic import BaseModel

from spine.kernel import ids
from spine.kernel.errors import NotFound
from spine.kernel.platform import Platform
from spine.kernel.routes import declares, new_router


class PublicKey(BaseModel):
    """A key that verifies `v1a` signatures."""

    public_key: str
    created_at: datetime
    expires_at: datetime | None


class PublicKeys(BaseModel):
    keys: list[PublicKey]


router = new_router("/.well-known/webhook-keys", "webhook_endpoints")


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
