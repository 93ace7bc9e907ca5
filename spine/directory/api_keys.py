"""API keys: create, list, roll with an overlap, revoke. A key is shown once and stored only as a hash (P-01)."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import Field, StringConstraints
from sqlalchemy import text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import Text

from spine.kernel import store
from spine.kernel.authentication import Caller
from spine.kernel.crud import crud_router
from spine.kernel.errors import Forbidden, IllegalTransition, Unauthenticated, Unprocessable
from spine.kernel.events import EventType
from spine.kernel.keys import key_hash, mint_key
from spine.kernel.resource import Body, Metadata, Name, Resource, ResourceOut, TenantRow, Timestamp
from spine.kernel.routes import CurrentUnit, declares

Scope = Annotated[str, StringConstraints(pattern=r"^(\*|[a-z_]+:(\*|[a-z_]+))$", max_length=64)]
MAX_OVERLAP_S = 7 * 24 * 3600
_STORE_HASH: Final = text("INSERT INTO spine.api_key_hashes (hash, workspace_id, key_id) VALUES (:hash, :ws, :id)")


class KeyStatus(StrEnum):
    """Rolled keys still open until their overlap ends; revoked ones never again."""

    ACTIVE = "active"
    ROLLED = "rolled"
    REVOKED = "revoked"


class ApiKeyRow(TenantRow):
    __tablename__ = "api_keys"
    name: Mapped[str]
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    prefix: Mapped[str]
    last4: Mapped[str]
    status: Mapped[str] = mapped_column(default=KeyStatus.ACTIVE)
    last_used_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]


class ApiKeyCreate(Body):
    name: Name
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=50)]
    expires_at: Timestamp | None = None
    metadata: Metadata = {}


class ApiKeyOut(ResourceOut):
    object: str = "api_key"
    name: str
    scopes: list[str]
    prefix: str
    last4: str
    status: KeyStatus
    last_used_at: datetime | None
    expires_at: datetime | None


class ApiKeyWithSecret(ApiKeyOut):
    """A key as it is shown once."""

    api_key: str = Field(description="Shown this once; keep it now.")


class RollBody(Body):
    overlap_s: Annotated[int, Field(ge=0, le=MAX_OVERLAP_S, description="How long the old key still opens.")] = (
        24 * 3600
    )


CREATED = EventType("api_key.created", ApiKeyOut, "An API key was made, or rolled into a new one.")
REVOKED = EventType("api_key.revoked", ApiKeyOut, "An API key was revoked.")
API_KEY = Resource(
    noun="api_key",
    row=ApiKeyRow,
    create=ApiKeyCreate,
    update=None,
    out=ApiKeyOut,
    scope="keys",
    events=(CREATED, REVOKED),
    states={
        KeyStatus.ACTIVE: frozenset({KeyStatus.ROLLED, KeyStatus.REVOKED}),
        KeyStatus.ROLLED: frozenset({KeyStatus.REVOKED}),
        KeyStatus.REVOKED: frozenset(),
    },
)

router = crud_router(API_KEY, "", "get", "list")


def key_columns(key: str) -> dict[str, Any]:
    """Return the columns that show a key without revealing it: its first eight characters and its last four."""
    return {"prefix": key[:8], "last4": key[-4:]}


async def store_hash(session: AsyncSession, workspace_id: str, key_id: str, key: str) -> None:
    """Store the hash by which a new key is found, in the transaction that creates its row."""
    await session.execute(_STORE_HASH, {"hash": key_hash(key), "ws": workspace_id, "id": key_id})


def _require_own_scopes(caller: Caller, scopes: list[str]) -> None:
    for scope in scopes:
        if not ({"*", scope, scope.partition(":")[0] + ":*"} & caller.scopes):
            raise Forbidden(f"a key can only give or revoke scopes that it has itself; this one lacks {scope}")


async def _end_of_caller(unit: CurrentUnit) -> datetime | None:
    """Return when the caller's own key expires. Reads its row, because a roll or a revocation may be newer than the cache."""
    own: ApiKeyRow = await store.get(unit, API_KEY, unit.caller.key_id, lock=True)
    if own.status == KeyStatus.REVOKED:
        raise Unauthenticated
    return own.expires_at


def _earliest(*ends: datetime | None) -> datetime | None:
    """Return the first of these times; None, which means never, if none is given."""
    return min((end for end in ends if end is not None), default=None)


async def _create(unit: CurrentUnit, body: ApiKeyCreate) -> ApiKeyWithSecret:
    key = mint_key(unit.caller.env)
    row = await store.create(unit, API_KEY, **store.columns(body), **key_columns(key))
    await store_hash(unit.session, unit.workspace_id, row.id, key)
    out = await store.emit_event(unit, API_KEY, row, "created")
    return ApiKeyWithSecret(**out.model_dump(), api_key=key)


@router.post("", status_code=201, openapi_extra=declares("keys:write", CREATED, sealed=True), summary="Make an API key")
async def create_api_key(body: ApiKeyCreate, unit: CurrentUnit) -> ApiKeyWithSecret:
    _require_own_scopes(unit.caller, body.scopes)
    if body.expires_at is not None and body.expires_at <= await unit.now():
        raise Unprocessable("expires_at lies in the past", param="expires_at")
    own_end = await _end_of_caller(unit)
    if body.expires_at is not None and own_end is not None and body.expires_at > own_end:
        raise Unprocessable(
            f"a key cannot outlive the key that makes it, which expires at {own_end}", param="expires_at"
        )
    return await _create(unit, body.model_copy(update={"expires_at": _earliest(body.expires_at, own_end)}))


@router.post(
    "/{id}/roll", openapi_extra=declares("keys:write", CREATED, sealed=True), summary="Roll an API key into a new one"
)
async def roll_api_key(id: str, unit: CurrentUnit, body: RollBody | None = None) -> ApiKeyWithSecret:
    overlap = timedelta(seconds=(body or RollBody()).overlap_s)
    old = await store.get(unit, API_KEY, id, lock=True)
    if old.status != KeyStatus.ACTIVE:
        raise IllegalTransition(f"a {old.status} key cannot be rolled", allowed=sorted(API_KEY.states[old.status]))
    _require_own_scopes(unit.caller, old.scopes)
    new_end = _earliest(old.expires_at, await _end_of_caller(unit))
    ends = await unit.now() + overlap
    await store.change(
        unit,
        API_KEY,
        old,
        {"status": KeyStatus.ROLLED, "expires_at": _earliest(ends, old.expires_at)},
    )
    unit.after_commit(unit.platform.authenticator.clear_cache)
    return await _create(unit, ApiKeyCreate(name=old.name, scopes=old.scopes, expires_at=new_end, metadata=old.meta))


@router.post("/{id}/revoke", openapi_extra=declares("keys:write", REVOKED), summary="Revoke an API key, at once")
async def revoke_api_key(id: str, unit: CurrentUnit) -> ApiKeyOut:
    _require_own_scopes(unit.caller, (await store.get(unit, API_KEY, id, lock=True)).scopes)
    row = await store.transition(unit, API_KEY, id, KeyStatus.REVOKED)
    unit.after_commit(unit.platform.authenticator.clear_cache)
    out: ApiKeyOut = await store.emit_event(unit, API_KEY, row, "revoked")
    return out
