"""Provider callbacks: receipts and replies. The signature is verified before the body is parsed (ruling X21)."""

from collections.abc import Mapping
from typing import Any, Final

import structlog
from fastapi import Request
from pydantic import BaseModel

from products.notifications.providers import open_adapters
from providers.protocol import MalformedCallback, Provider, SignatureInvalid
from spine.kernel.errors import InvalidBody, TooLarge, Unauthenticated, Unavailable
from spine.kernel.platform import Platform
from spine.kernel.routes import declares, new_router
from spine.kernel.vault import Unsealable, Vault
from spine.notifications import receipts
from spine.notifications.account_credentials import open_account, signing_secret
from spine.notifications.message_changes import after_commit
from spine.notifications.message_events import DELIVERED, FAILED, REPLIED, SENT
from spine.notifications.preferences import CHANGED
from spine.notifications.receipts import ReceivedReport

_ACCOUNT_FIND: Final = "SELECT * FROM spine.provider_account_find($1)"
_MAX_BODY_BYTES: Final = 1024 * 1024
_log = structlog.get_logger(__name__)

router = new_router("/notifications/v1/inbound", "inbound")


class ReceiptBody(BaseModel):
    """What an HTTP provider reports, signed as webhooks are."""

    attempt_id: str | None = None
    id: str
    status: str
    timestamp: str
    error: str | None = None
    text: str | None = None


class ReceivedOut(BaseModel):
    """The callback was taken."""

    received: int


def read_callback(
    adapters: Mapping[str, Provider], account_row: Any, vault: Vault, headers: Mapping[str, str], body: bytes
) -> list[ReceivedReport]:
    """Verify a callback and return its reports. Raises SignatureInvalid, MalformedCallback.

    The worker sends the sandbox's receipts through this function too.
    """
    account = open_account(account_row, vault)
    secret = signing_secret(account, vault) if hasattr(account.credentials, "secret") else ""
    reports = adapters[account.kind].reports(account, secret, headers, body)
    return [ReceivedReport(account.workspace_id, account.id, report) for report in reports]


@router.post(
    "/{provider_account_id}",
    openapi_extra=declares("", SENT, DELIVERED, FAILED, REPLIED, CHANGED, public=True)
    | {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": ReceiptBody.model_json_schema()}},
        }
    },
    summary="A provider's callback: receipts and replies",
)
async def receive_provider_callback(provider_account_id: str, request: Request) -> ReceivedOut:
    platform: Platform = request.app.state.platform
    body = await _body(request)
    row = await platform.pool.fetchrow(_ACCOUNT_FIND, provider_account_id)
    if row is None:
        raise Unauthenticated("this callback's signature does not match")
    adapters = open_adapters(platform.pool, platform.http_client)
    try:
        received = read_callback(adapters, row, platform.vault, request.headers, body)
    except SignatureInvalid as error:
        _log.info("callback refused", provider_account_id=provider_account_id)
        raise Unauthenticated("this callback's signature does not match") from error
    except MalformedCallback as error:
        raise InvalidBody(str(error)) from error
    except Unsealable as error:  # an operator may bring the key back: let the provider try again
        _log.error("credentials unreadable", provider_account_id=provider_account_id)
        raise Unavailable from error
    async with platform.pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT set_config('app.ws', $1, true)", row["workspace_id"])
        all_changes = await receipts.receive_reports(connection, received, request.scope["spine.request_id"])
    after_commit(all_changes, platform.wakeups)
    return ReceivedOut(received=len(received))


async def _body(request: Request) -> bytes:
    chunks = bytearray()
    async for chunk in request.stream():
        chunks += chunk
        if len(chunks) > _MAX_BODY_BYTES:
            raise TooLarge(f"a callback may have {_MAX_BODY_BYTES} bytes")
    return bytes(chunks)
