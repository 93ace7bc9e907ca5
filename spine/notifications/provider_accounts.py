"""Provider accounts: the accounts over which a channel's messages are sent. Credentials are write-only."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field, JsonValue
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import BigInteger, Double, LargeBinary

from spine.kernel import ids, store
from spine.kernel.errors import Unprocessable
from spine.kernel.events import EventType
from spine.kernel.handlers import prepared_by
from spine.kernel.resource import Body, Metadata, Name, PatchBody, Resource, ResourceOut, TenantRow
from spine.kernel.routes import CurrentUnit, IfMatch, Paging, declares, new_router, version_of
from spine.kernel.store import Page
from spine.kernel.unit_of_work import UnitOfWork
from spine.notifications.account_credentials import require_secret_again, seal, unseal, validate_account
from spine.notifications.account_models import RecipientRate, SandboxState
from spine.notifications.account_targets import callback_url, check_target, resolve_target
from spine.notifications.breakers import CLOSED, OPENED, BreakerOut, end_misconfigured, read_breakers
from spine.notifications.provider_kinds import PROVIDER_KINDS, SANDBOX, Channel, KindName

Rate = Annotated[float, Field(gt=0, le=100_000, description="At most this many calls a second.")]
Priority = Annotated[int, Field(ge=0, le=1_000, description="Lower ones are tried first.")]
Weight = Annotated[int, Field(ge=1, le=1_000, description="Its share of the messages among accounts of one priority.")]
UnitCost = Annotated[
    int,
    Field(
        ge=1, le=10**12, description="What a message costs, on SMS each part of one, in millionths of your currency."
    ),
]
_DEFAULT_PRIORITY: Final = 100


class AccountRow(TenantRow):
    __tablename__ = "provider_accounts"
    env: Mapped[str]
    name: Mapped[str]
    channel: Mapped[str]
    kind: Mapped[str]
    priority: Mapped[int]
    weight: Mapped[int]
    rate_per_s: Mapped[float | None] = mapped_column(Double)
    recipient_rate: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    unit_cost_micros: Mapped[int | None] = mapped_column(BigInteger)
    credentials: Mapped[bytes | None] = mapped_column(LargeBinary)
    config: Mapped[dict[str, Any]]
    sandbox: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))

    breaker = BreakerOut()
    """Read from the breaker's own row (`with_breakers`)."""
    callback_url: ClassVar[str | None] = None
    """Made of the row by `_name_callback`."""


class AccountCreate(Body):
    name: Name | None = None
    channel: Channel
    kind: KindName
    priority: Priority = _DEFAULT_PRIORITY
    weight: Weight = 1
    rate_per_s: Rate | None = None
    recipient_rate: RecipientRate | None = None
    unit_cost_micros: UnitCost | None = None
    credentials: dict[str, JsonValue] = Field(
        default={},
        description="As its kind needs them; see the guide to providers. They are encrypted and never shown.",
    )
    config: dict[str, JsonValue] = Field(default={}, description="As its kind needs it; see the guide to providers.")
    metadata: Metadata = {}


class AccountUpdate(PatchBody):
    name: Name = ""
    priority: Priority = _DEFAULT_PRIORITY
    weight: Weight = 1
    rate_per_s: Rate | None = None
    recipient_rate: RecipientRate | None = None
    unit_cost_micros: UnitCost | None = None
    credentials: dict[str, JsonValue] = {}
    config: dict[str, JsonValue] = {}
    sandbox: SandboxState | None = None
    metadata: Metadata = {}


class AccountOut(ResourceOut):
    object: str = "provider_account"
    name: str
    channel: Channel
    kind: str
    priority: int
    weight: int
    rate_per_s: float | None
    recipient_rate: RecipientRate | None
    unit_cost_micros: int | None
    config: dict[str, Any]
    sandbox: SandboxState | None = Field(description="How a sandbox account is told to misbehave; null for real ones.")
    callback_url: str | None = Field(
        description="The URL for its provider's receipts and replies. Put your own `callback_token` in its place there."
    )
    breaker: BreakerOut = Field(default=BreakerOut(), description="Whether the account is called.")


CREATED = EventType("provider_account.created", AccountOut, "A provider account was added.")
UPDATED = EventType("provider_account.updated", AccountOut, "A provider account was changed.")
ACCOUNT = Resource(
    noun="provider_account",
    row=AccountRow,
    create=AccountCreate,
    update=AccountUpdate,
    out=AccountOut,
    scope="notifications",
    events=(CREATED, UPDATED, OPENED, CLOSED),
)

router = new_router(f"/notifications/v1/{ACCOUNT.plural}", ACCOUNT.plural, ACCOUNT)


def _name_callback(unit: UnitOfWork, row: AccountRow) -> None:
    row.callback_url = callback_url(unit.platform.http.url, row.kind, row.id)  # type: ignore[misc]  # not a column


async def with_breakers(unit: UnitOfWork, rows: Sequence[AccountRow]) -> list[AccountOut]:
    """Return accounts as callers see them, with their breakers, which one query reads."""
    found = await read_breakers(unit, [row.id for row in rows])
    for row in rows:
        row.breaker = found.get(row.id, row.breaker)
        _name_callback(unit, row)
    return [AccountOut.model_validate(row) for row in rows]


@router.get("", openapi_extra=declares("notifications:read"), summary="List provider accounts, newest first")
async def list_provider_accounts(unit: CurrentUnit, paging: Paging) -> Page[AccountOut]:
    page: Page[Any] = await store.page(unit, ACCOUNT, paging.cursor, paging.limit, out=lambda row: row)
    return Page(data=await with_breakers(unit, page.data), has_more=page.has_more, next_cursor=page.next_cursor)


@router.get("/{id}", openapi_extra=declares("notifications:read"), summary="Read a provider account")
async def get_provider_account(id: str, unit: CurrentUnit) -> AccountOut:
    return (await with_breakers(unit, [await store.get(unit, ACCOUNT, id)]))[0]


def _check_kind(unit: UnitOfWork, kind: str, channel: str) -> None:
    if (kind == SANDBOX) != (unit.caller.env == "test"):
        detail = (
            "a test workspace sends through the sandbox alone; make real accounts with a live key"
            if unit.caller.env == "test"
            else "the sandbox is for test workspaces alone"
        )
        raise Unprocessable(detail, code="provider_not_allowed", param="kind")
    if channel not in PROVIDER_KINDS[kind].channels:
        raise Unprocessable(f"{kind} does not carry {channel}", code="channel_not_supported", param="channel")


@router.post(
    "", status_code=201, openapi_extra=declares("notifications:write", CREATED), summary="Add a provider account"
)
@prepared_by(resolve_target)
async def create_provider_account(body: AccountCreate, unit: CurrentUnit) -> AccountOut:
    _check_kind(unit, body.kind, body.channel)
    credentials, config = validate_account(body.kind, body.credentials, body.config)
    check_target(unit, body.kind)
    id = ids.mint(ACCOUNT.prefix)
    row = await store.create(
        unit,
        ACCOUNT,
        id=id,
        env=unit.caller.env,
        name=body.name or f"{body.kind} {body.channel}",
        channel=body.channel,
        kind=body.kind,
        priority=body.priority,
        weight=body.weight,
        rate_per_s=body.rate_per_s,
        recipient_rate=body.recipient_rate.model_dump() if body.recipient_rate else None,
        unit_cost_micros=body.unit_cost_micros,
        credentials=seal(unit.platform.vault, credentials, unit.workspace_id, id),
        config=config.model_dump(exclude_none=True),
        sandbox=SandboxState().model_dump() if body.kind == SANDBOX else None,
        meta=body.metadata,
    )
    _name_callback(unit, row)
    out: AccountOut = await store.emit_event(unit, ACCOUNT, row, "created")
    return out


@router.patch("/{id}", openapi_extra=declares("notifications:write", UPDATED), summary="Change a provider account")
@prepared_by(resolve_target)
async def update_provider_account(
    id: str, body: AccountUpdate, unit: CurrentUnit, if_match: IfMatch = None
) -> AccountOut:
    row: AccountRow = await store.get(unit, ACCOUNT, id, lock=True)
    values = store.columns(body)
    old = unseal(unit.platform.vault, row.credentials, row.workspace_id, row.id)
    # Fields that are left out keep their values: a password can be changed without sending the rest again.
    credentials, config = validate_account(
        row.kind, old | values.pop("credentials", {}), row.config | values.pop("config", {})
    )
    if body.credentials:
        check_target(unit, row.kind)
    tls = (row.config.get("tls", ""), getattr(config, "tls", ""))
    require_secret_again(row.kind, old, credentials, tls, body.credentials)
    if credentials.model_dump(exclude_none=True) != old:
        values["credentials"] = seal(unit.platform.vault, credentials, row.workspace_id, row.id)
    values["config"] = config.model_dump(exclude_none=True)
    if body.recipient_rate is not None:
        values["recipient_rate"] = body.recipient_rate.model_dump()
    if "sandbox" in values:
        if row.kind != SANDBOX:
            raise Unprocessable("only a sandbox account can be told to fail", code="not_a_sandbox", param="sandbox")
        values["sandbox"] = (body.sandbox or SandboxState()).model_dump()
    changed = await store.change(unit, ACCOUNT, row, values, version_of(if_match))
    if changed and (body.credentials or body.config):
        await end_misconfigured(unit, row)
    (out,) = await with_breakers(unit, [row])
    return await store.emit_event(unit, ACCOUNT, row, "updated") if changed else out


def sandbox_accounts(workspace_id: str, env: str) -> Iterator[AccountRow]:
    """Yield the accounts of a new test workspace, one per channel (wire.md, signup). Yields none for a live workspace."""
    for channel in Channel if env == "test" else ():
        id = ids.mint(ids.PREFIXES["provider_account"])
        created_at = ids.created_at(id)
        yield AccountRow(
            workspace_id=workspace_id,
            id=id,
            created_at=created_at,
            updated_at=created_at,
            env="test",
            name=f"sandbox {channel}",
            channel=channel.value,
            kind=SANDBOX,
            priority=_DEFAULT_PRIORITY,
            weight=1,
            config={},
            sandbox=SandboxState().model_dump(),
        )
