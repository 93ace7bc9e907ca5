"""Test a provider account before it is used: ask its provider, or send one message to an address that the caller gives."""

import time
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field, StringConstraints

from products.notifications.providers import open_adapters
from spine.directory.addresses import email_address, is_sandbox_address, phone_e164
from spine.kernel import ids, store, timeline
from spine.kernel.errors import Unprocessable
from spine.kernel.events import EventType
from spine.kernel.handlers import prepared_by
from spine.kernel.resource import Body
from spine.kernel.routes import CurrentUnit, declares, new_router
from spine.kernel.unit_of_work import UnitOfWork
from spine.kernel.vault import Unsealable
from spine.notifications.account_credentials import ACCOUNT_LOAD, ProviderAccount, open_account
from spine.notifications.provider_accounts import ACCOUNT
from spine.notifications.provider_calls import ProviderCall, ProviderResult
from spine.notifications.rendering import Content

_TEXT: Final = "This is a test message. It shows that this account can send."
_SUBJECT: Final = "Test message"
_WAIT_S: Final = 60


class AccountTestBody(Body):
    to: Annotated[
        str | None,
        StringConstraints(min_length=1, max_length=320),
        Field(
            description="A number or an address of your own that gets a test message. Without it, the provider is only asked "
            "whether it takes the credentials."
        ),
    ] = None


class AccountTested(BaseModel):
    """What a test of a provider account came to."""

    object: str = "provider_account_test"
    provider_account_id: str
    outcome: Literal["accepted", "rejected", "unknown", "not_supported"] = Field(
        description="`not_supported`: the provider can only be tested with a message; give `to`."
    )
    class_: str | None = Field(alias="class", description="Of a rejection, as in an attempt.")
    provider_code: str | None
    provider_http: int | None
    provider_message_id: str | None
    duration_ms: int


TESTED = EventType("provider_account.tested", AccountTested, "Somebody tested a provider account.")

router = new_router(f"/notifications/v1/{ACCOUNT.plural}", ACCOUNT.plural)


async def _ask_provider(unit: UnitOfWork, id: str, body: AccountTestBody) -> tuple[ProviderResult | None, int] | None:
    """Make the call, before the transaction opens. Returns its result and its milliseconds; None for an unknown account."""
    platform, workspace_id = unit.platform, unit.workspace_id
    if not ids.is_id(id, ACCOUNT.prefix):
        return None
    await platform.account_tests.take(workspace_id, "This workspace tests its provider accounts too often.")
    async with platform.pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT set_config('app.ws', $1, true)", workspace_id)
        row = await connection.fetchrow(ACCOUNT_LOAD, workspace_id, id)
    if row is None:
        return None
    start_s = time.perf_counter()
    try:
        account = open_account(row, platform.vault)
    except Unsealable:
        return ProviderResult("rejected", None, "config", "credentials_unreadable"), 0
    adapter = open_adapters(None, platform.http_client, platform.http.url)[account.kind]
    if body.to is None:
        result = await adapter.check(account)
    else:
        result = await adapter.send(account, _call(account, _address(account, body.to)))
    return result, round((time.perf_counter() - start_s) * 1000)


def _address(account: ProviderAccount, to: str) -> str:
    """Return the address, normalised. Raises Unprocessable if it is none, or none that this account may send to."""
    try:
        address = email_address(to) if account.channel == "email" else phone_e164(to)
    except ValueError as error:
        raise Unprocessable(str(error), code="address_invalid", param="to") from error
    if is_sandbox_address(address) != (account.env == "test"):
        detail = (
            "a test account sends to the sandbox's recipients alone, such as +910000000000"
            if account.env == "test"
            else "this recipient is the sandbox's; give an address of your own"
        )
        raise Unprocessable(detail, code="sandbox_address", param="to")
    return address


def _call(account: ProviderAccount, address: str) -> ProviderCall:
    subject = _SUBJECT if account.channel == "email" else None
    return ProviderCall(
        attempt_id=ids.mint(ids.PREFIXES["attempt"]),
        message_id="",
        workspace_id=account.workspace_id,
        channel=account.channel,
        to=address,
        content=Content(_TEXT, subject),
        vars={},
        env=account.env,
        number=1,
        wait_s=_WAIT_S,
    )


@router.post(
    "/{id}/test",
    openapi_extra=declares("notifications:write", TESTED),
    summary="Test a provider account: ask its provider, or send one message to an address of yours",
)
@prepared_by(_ask_provider)
async def test_provider_account(
    id: str,
    body: AccountTestBody,  # noqa: ARG001  # `_ask_provider` reads it
    unit: CurrentUnit,
) -> AccountTested:
    row = await store.get(unit, ACCOUNT, id)
    prepared: Any = unit.prepared
    assert prepared is not None  # the account was there before
    result, duration_ms = prepared
    tested = AccountTested.model_validate(
        {
            "provider_account_id": row.id,
            "outcome": result.outcome if result is not None else "not_supported",
            "class": result.failure if result is not None else None,
            "provider_code": result.code if result is not None else None,
            "provider_http": result.http_status if result is not None else None,
            "provider_message_id": result.provider_message_id if result is not None else None,
            "duration_ms": duration_ms,
        }
    )
    unit.emit(TESTED, tested, sequence=row.version)
    detail = {"outcome": tested.outcome, "class": tested.class_, "provider_code": tested.provider_code}
    await timeline.append(unit, id, TESTED.name, detail=detail)
    return tested
