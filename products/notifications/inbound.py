"""Provider callbacks: receipts and replies. The signature is verified before the body is parsed (ruling X21)."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import asyncpg
import structlog
from fastapi import Path, Request, Response
from pydantic import BaseModel, Field

from products.notifications.providers import open_adapters
from providers.protocol import Callback, CallbackResponse, MalformedCallback, Provider, SignatureInvalid
from spine.directory.contact_suggestions import CHANGE_SUGGESTED
from spine.kernel.errors import InvalidBody, TooLarge, Unauthenticated, Unavailable
from spine.kernel.metrics import provider_callbacks
from spine.kernel.platform import Platform
from spine.kernel.routes import declares, new_router
from spine.kernel.vault import Unsealable, Vault
from spine.notifications import receipts
from spine.notifications.account_credentials import open_account
from spine.notifications.message_changes import after_commit
from spine.notifications.message_events import DELIVERED, FAILED, REPLIED, SENT
from spine.notifications.preferences import CHANGED
from spine.notifications.provider_calls import callback_path
from spine.notifications.receipts import ReceivedReport

_ACCOUNT_FIND: Final = "SELECT * FROM spine.provider_account_find($1)"
_MAX_BODY_BYTES: Final = 1024 * 1024
_MAX_REPORTS: Final = 2_000
"""Reports of one callback. Meta sends up to 1,000 changes in one."""
_log = structlog.get_logger(__name__)

router = new_router("/notifications/v1/inbound", "inbound")

TokenPart = Annotated[
    str, Path(max_length=128, description="The account's `callback_token`, for providers that sign no callbacks.")
]


class ReceiptBody(BaseModel):
    """What an HTTP provider reports, signed as webhooks are. Other kinds of accounts send what their provider defines."""

    attempt_id: str | None = None
    id: str
    status: str
    timestamp: str
    error: str | None = None
    text: str | None = Field(default=None, description="The person's reply, if `status` is `replied`.")
    in_reply_to: str | None = Field(default=None, description="Your id of the message that the person replied to.")
    from_: str | None = Field(default=None, alias="from", description="The address that a reply came from.")


class ReceivedOut(BaseModel):
    """The callback was taken. Providers that expect another answer get theirs."""

    received: int


_RECEIVES: Final = declares("", SENT, DELIVERED, FAILED, REPLIED, CHANGED, CHANGE_SUGGESTED, public=True) | {
    "requestBody": {"required": True, "content": {"application/json": {"schema": ReceiptBody.model_json_schema()}}}
}


def read_callback(
    adapters: Mapping[str, Provider], account_row: Any, vault: Vault, callback: Callback
) -> tuple[list[ReceivedReport], CallbackResponse]:
    """Verify a callback. Returns its reports and its answer. Raises SignatureInvalid, MalformedCallback, Unsealable.

    The worker sends the sandbox's receipts through this function too.
    """
    account = open_account(account_row, vault)
    answer = adapters[account.kind].receive(account, callback)
    if len(answer.reports) > _MAX_REPORTS:
        raise MalformedCallback(f"a callback may have {_MAX_REPORTS} reports")
    return [ReceivedReport(account.workspace_id, account.id, report) for report in answer.reports], answer


@router.post(
    "/{provider_account_id}",
    response_model=ReceivedOut,
    openapi_extra=_RECEIVES,
    summary="A provider's callback: receipts and replies",
)
async def receive_provider_callback(provider_account_id: str, request: Request) -> Response | ReceivedOut:
    return await _receive(request, provider_account_id)


@router.post(
    "/{provider_account_id}/{callback_token}",
    response_model=ReceivedOut,
    openapi_extra=_RECEIVES,
    summary="A callback of a provider that signs none: the token in its path stands for the signature",
)
async def receive_unsigned_callback(
    provider_account_id: str, callback_token: TokenPart, request: Request
) -> Response | ReceivedOut:
    return await _receive(request, provider_account_id, callback_token)


@router.get(
    "/{provider_account_id}",
    response_model=ReceivedOut,
    openapi_extra=declares("", public=True),
    summary="The call by which a provider proves that the URL is its account's (Meta's webhook set-up)",
)
async def confirm_provider_callback(provider_account_id: str, request: Request) -> Response | ReceivedOut:
    return await _receive(request, provider_account_id)


async def _receive(request: Request, account_id: str, token: str | None = None) -> Response | ReceivedOut:
    platform: Platform = request.app.state.platform
    body = await _body(request)
    row = await platform.pool.fetchrow(_ACCOUNT_FIND, account_id)
    if row is None:
        provider_callbacks("unknown", "refused").inc()
        raise Unauthenticated("this callback's signature does not match")
    query = f"?{request.url.query}" if request.url.query else ""
    url = f"{platform.http.url}{callback_path(account_id, token)}{query}"
    callback = Callback(request.method, url, request.headers, body, request.query_params, token)
    adapters = open_adapters(None, platform.http_client, platform.http.url)
    try:
        received, answer = read_callback(adapters, row, platform.vault, callback)
    except SignatureInvalid as error:
        provider_callbacks(row["kind"], "refused").inc()
        _log.info("callback refused", provider_account_id=account_id)
        raise Unauthenticated("this callback's signature does not match") from error
    except MalformedCallback as error:
        provider_callbacks(row["kind"], "malformed").inc()
        raise InvalidBody(str(error)) from error
    except Unsealable as error:  # an operator may bring the key back: let the provider try again
        _log.error("credentials unreadable", provider_account_id=account_id)
        raise Unavailable from error
    if received:
        await _store(platform, row["workspace_id"], received, request.scope["spine.request_id"])
    provider_callbacks(row["kind"], "taken").inc()
    if answer.content is not None:
        return Response(answer.content, media_type=answer.media_type)
    return ReceivedOut(received=len(received))


async def _store(platform: Platform, workspace_id: str, received: list[ReceivedReport], request_id: str) -> None:
    """Store and apply reports in one transaction. Raises Unavailable, so that the provider repeats them."""
    try:
        async with platform.pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT set_config('app.ws', $1, true)", workspace_id)
            all_changes = await receipts.receive_reports(connection, received, request_id)
    except asyncpg.UniqueViolationError as error:  # another callback added the person's contact at the same time
        raise Unavailable from error
    after_commit(all_changes, platform.wakeups)


async def _body(request: Request) -> bytes:
    chunks = bytearray()
    async for chunk in request.stream():
        chunks += chunk
        if len(chunks) > _MAX_BODY_BYTES:
            raise TooLarge(f"a callback may have {_MAX_BODY_BYTES} bytes")
    return bytes(chunks)
