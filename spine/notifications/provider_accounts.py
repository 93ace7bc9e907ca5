"""Provider accounts: who carries a channel's messages. Credentials are sealed and never read back."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final

import orjson
from pydantic import Field, JsonValue, ValidationError
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import Double, LargeBinary

from policies.url_targets import Refused
from spine.kernel import ids, store
from spine.kernel.crud import crud_router
from spine.kernel.errors import FieldError, InvalidBody, Unprocessable
from spine.kernel.events import EventType
from spine.kernel.handlers import prepared_by
from spine.kernel.resource import Body, Metadata, Name, PatchBody, Resource, ResourceOut, TenantRow
from spine.kernel.routes import CurrentUnit, IfMatch, declares, version_of
from spine.kernel.unit_of_work import UnitOfWork
from spine.kernel.vault import Vault
from spine.notifications.provider_kinds import (
    PROVIDER_KINDS,
    SANDBOX,
    Channel,
    HttpCredentials,
    KindName,
    SandboxState,
    SmtpCredentials,
    parsed,
)

Rate = Annotated[float, Field(gt=0, le=100_000, description="At most this many calls a second.")]
Priority = Annotated[int, Field(ge=0, le=1_000, description="Lower ones are tried first.")]
Weight = Annotated[int, Field(ge=1, le=1_000)]
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
    credentials: Mapped[bytes | None] = mapped_column(LargeBinary)
    config: Mapped[dict[str, Any]]
    sandbox: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))


class AccountCreate(Body):
    name: Name | None = None
    channel: Channel
    kind: KindName
    priority: Priority = _DEFAULT_PRIORITY
    weight: Weight = 1
    rate_per_s: Rate | None = None
    credentials: dict[str, JsonValue] = Field(
        default={}, description="http: url, secret; smtp: host, port, username, password; sandbox: secret, if you like."
    )
    config: dict[str, JsonValue] = Field(
        default={}, description="http: id, status, error as JSONPath; smtp: sender, tls, reply_to."
    )
    metadata: Metadata = {}


class AccountUpdate(PatchBody):
    name: Name = ""
    priority: Priority = _DEFAULT_PRIORITY
    weight: Weight = 1
    rate_per_s: Rate | None = None
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
    config: dict[str, Any]
    sandbox: SandboxState | None = Field(description="How a sandbox account is told to misbehave; null for real ones.")


CREATED = EventType("provider_account.created", AccountOut, "A provider account was added.")
UPDATED = EventType("provider_account.updated", AccountOut, "A provider account was changed.")
ACCOUNT = Resource(
    noun="provider_account",
    row=AccountRow,
    create=AccountCreate,
    update=AccountUpdate,
    out=AccountOut,
    scope="notifications",
    events=(CREATED, UPDATED),
)

router = crud_router(ACCOUNT, "notifications", "get", "list")


@dataclass(frozen=True, slots=True)
class ProviderAccount:
    """An account with its credentials open, as an adapter uses it."""

    workspace_id: str
    id: str
    env: str
    channel: str
    kind: str
    credentials: Any
    config: Any
    sandbox: SandboxState | None
    rate_per_s: float | None


def open_account(row: Any, vault: Vault) -> ProviderAccount:
    """From a row of provider_accounts. Raises Unsealable where the operator's key is missing."""
    given = orjson.loads(vault.open(row["credentials"])) if row["credentials"] is not None else {}
    credentials, config = parsed(row["kind"], given, row["config"])
    sandbox = row.get("sandbox")
    return ProviderAccount(
        row["workspace_id"],
        row["id"],
        row["env"],
        row["channel"],
        row["kind"],
        credentials,
        config,
        SandboxState.model_validate(sandbox) if sandbox is not None else None,
        row.get("rate_per_s"),
    )


def signing_secret(account: ProviderAccount, vault: Vault) -> str:
    """What signs an account's receipts. A sandbox account that was given none has one derived from the installation's key."""
    secret: str | None = account.credentials.secret
    if secret is not None:
        return secret
    return "whsec_" + base64.b64encode(vault.derive(b"sandbox." + account.id.encode())).decode()


def _refuse_kind(unit: UnitOfWork, kind: str, channel: str) -> None:
    if (kind == SANDBOX) != (unit.caller.env == "test"):
        detail = (
            "a test workspace sends through the sandbox alone; make real accounts with a live key"
            if unit.caller.env == "test"
            else "the sandbox is for test workspaces alone"
        )
        raise Unprocessable(detail, code="provider_not_allowed", param="kind")
    if channel not in PROVIDER_KINDS[kind].channels:
        raise Unprocessable(f"{kind} does not carry {channel}", code="channel_not_supported", param="channel")


def _parsed(kind: str, credentials: Any, config: Any) -> tuple[Body, Body]:
    known = PROVIDER_KINDS[kind]
    found: list[FieldError] = []
    models = []
    for name, model, given in (("credentials", known.credentials, credentials), ("config", known.config, config)):
        try:
            models.append(model.model_validate(given))
        except ValidationError as error:
            found += [
                FieldError(param=".".join([name, *map(str, item["loc"])]), code=item["type"], detail=item["msg"])
                for item in error.errors()
            ]
    if found:
        raise InvalidBody(f"{found[0].param}: {found[0].detail}", param=found[0].param, errors=found)
    return models[0], models[1]


async def _judged_target(unit: UnitOfWork, body: AccountCreate | AccountUpdate, **_: Any) -> Refused | None:
    """Whether the address in the credentials may be called, its name resolved before the transaction opens."""
    url, host = body.credentials.get("url"), body.credentials.get("host")
    if isinstance(url, str):
        return await unit.platform.http_client.check_target(url, https_required=True)
    if isinstance(host, str):
        named = f"[{host}]" if ":" in host else host
        return await unit.platform.http_client.check_target(f"https://{named}/")
    return None


def _refuse_target(unit: UnitOfWork, credentials: Body) -> None:
    if unit.prepared is not None and isinstance(credentials, HttpCredentials | SmtpCredentials):
        param = "credentials.url" if isinstance(credentials, HttpCredentials) else "credentials.host"
        raise Unprocessable(unit.prepared.why, code=unit.prepared.code, param=param)


def _sealed(unit: UnitOfWork, credentials: Body) -> bytes | None:
    given = credentials.model_dump(exclude_none=True)
    return unit.platform.vault.seal(orjson.dumps(given)) if given else None


@router.post(
    "", status_code=201, openapi_extra=declares("notifications:write", CREATED), summary="Add a provider account"
)
@prepared_by(_judged_target)
async def create_account(body: AccountCreate, unit: CurrentUnit) -> AccountOut:
    _refuse_kind(unit, body.kind, body.channel)
    credentials, config = _parsed(body.kind, body.credentials, body.config)
    _refuse_target(unit, credentials)
    row = await store.create(
        unit,
        ACCOUNT,
        env=unit.caller.env,
        name=body.name or f"{body.kind} {body.channel}",
        channel=body.channel,
        kind=body.kind,
        priority=body.priority,
        weight=body.weight,
        rate_per_s=body.rate_per_s,
        credentials=_sealed(unit, credentials),
        config=config.model_dump(exclude_none=True),
        sandbox=SandboxState().model_dump() if body.kind == SANDBOX else None,
        meta=body.metadata,
    )
    out: AccountOut = await store.emit_event(unit, ACCOUNT, row, "created")
    return out


@router.patch("/{id}", openapi_extra=declares("notifications:write", UPDATED), summary="Change a provider account")
@prepared_by(_judged_target)
async def update_account(id: str, body: AccountUpdate, unit: CurrentUnit, if_match: IfMatch = None) -> AccountOut:
    row: AccountRow = await store.get(unit, ACCOUNT, id, lock=True)
    values = store.columns(body)
    held = orjson.loads(unit.platform.vault.open(row.credentials)) if row.credentials is not None else {}
    # What is left out of credentials and config stays: a password can be changed without telling the rest again.
    credentials, config = _parsed(row.kind, held | values.pop("credentials", {}), row.config | values.pop("config", {}))
    if body.credentials:
        _refuse_target(unit, credentials)
    if credentials.model_dump(exclude_none=True) != held:
        values["credentials"] = _sealed(unit, credentials)
    values["config"] = config.model_dump(exclude_none=True)
    if "sandbox" in values:
        if row.kind != SANDBOX:
            raise Unprocessable("only a sandbox account can be told to fail", code="not_a_sandbox", param="sandbox")
        values["sandbox"] = (body.sandbox or SandboxState()).model_dump()
    if await store.change(unit, ACCOUNT, row, values, version_of(if_match)):
        return await store.emit_event(unit, ACCOUNT, row, "updated")  # type: ignore[no-any-return]
    return AccountOut.model_validate(row)


def sandbox_accounts(workspace_id: str, env: str) -> Iterator[AccountRow]:
    """The accounts that a new test workspace starts with, one per channel (wire.md, signup); none for a live one."""
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
