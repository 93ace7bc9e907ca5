"""Webhook endpoints: where events go, what they listen to, how they are signed, and how fast they may be called."""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import BaseModel, BeforeValidator, Field, StringConstraints, field_validator, model_validator
from sqlalchemy import text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import Double, LargeBinary, Text

from policies.url_targets import TargetRefused
from spine.kernel import store
from spine.kernel.errors import IllegalTransition, Unprocessable
from spine.kernel.events import EventType
from spine.kernel.handlers import prepared_by
from spine.kernel.resource import Body, Metadata, PatchBody, Resource, ResourceOut, TenantRow, Timestamp
from spine.kernel.routes import CurrentUnit, IfMatch, Paging, declares, new_router, version_of
from spine.kernel.store import Page
from spine.kernel.unit_of_work import UnitOfWork
from spine.webhooks.filters import Filter, Json, read, written
from spine.webhooks.patterns import Pattern
from spine.webhooks.signing import new_private_key, new_secret, public_key

MAX_OVERLAP_S: Final = 7 * 24 * 3600
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,100}")
_HEADER_VALUE: Final = re.compile(r"[\x20-\x7e]{0,1024}")
_OURS: Final = frozenset(
    {
        "host", "content-length", "content-type", "content-encoding", "transfer-encoding", "connection", "upgrade",
        "te", "trailer",
        "keep-alive", "proxy-authorization", "proxy-connection", "expect", "user-agent",
        "webhook-id", "webhook-timestamp", "webhook-signature",
    }
)  # fmt: skip

Patterns = Annotated[
    list[Pattern],
    Field(
        min_length=1,
        max_length=100,
        description="Event types: exact (`ticket.created`), a family (`ticket.*`), or all (`*`).",
    ),
]
Rate = Annotated[float, Field(gt=0, le=10_000, description="At most this many calls a second.")]
InFlight = Annotated[int, Field(ge=1, le=1_000, description="At most this many calls at once.")]
Description = Annotated[str, StringConstraints(max_length=500)]


class EndpointStatus(StrEnum):
    """A disabled endpoint's events are held, not dropped."""

    ENABLED = "enabled"
    DISABLED = "disabled"


class EndpointRow(TenantRow):
    __tablename__ = "webhook_endpoints"
    url: Mapped[str] = mapped_column(Text)
    events: Mapped[list[str]] = mapped_column(ARRAY(Text))
    filter: Mapped[str | None] = mapped_column(Text)
    description: Mapped[str] = mapped_column(Text, default="")
    headers: Mapped[bytes | None] = mapped_column(LargeBinary)
    rate_per_s: Mapped[float | None] = mapped_column(Double)
    max_in_flight: Mapped[int] = mapped_column(default=20)
    signature: Mapped[str] = mapped_column(Text, default="v1")
    status: Mapped[str] = mapped_column(Text, default=EndpointStatus.ENABLED)
    disabled_reason: Mapped[str | None] = mapped_column(Text)
    disabled_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]


def _checked_headers(headers: dict[str, str] | None) -> dict[str, str] | None:
    for name, value in (headers or {}).items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no header name")
        if name.lower() in _OURS:
            raise ValueError(f"{name} is set by us or by HTTP itself; choose another name")
        if not _HEADER_VALUE.fullmatch(value):
            raise ValueError(f"the value of {name} must be up to 1,024 visible ASCII characters")
    return headers


Headers = Annotated[dict[str, str], Field(max_length=20, description="Sent with every delivery, beside ours.")]


class EndpointCreate(Body):
    url: Annotated[str, StringConstraints(min_length=1, max_length=2048)]
    events: Patterns
    filter: Filter | None = None
    description: Description = ""
    headers: Headers | None = None
    rate_per_s: Rate | None = None
    max_in_flight: InFlight = 20
    signature: Literal["v1", "v1a"] = "v1"
    metadata: Metadata = {}

    _headers = field_validator("headers")(_checked_headers)


class EndpointUpdate(PatchBody):
    url: Annotated[str, StringConstraints(min_length=1, max_length=2048)] = ""
    events: Patterns = []
    filter: Filter | None = None
    description: Description = ""
    headers: Headers | None = None
    rate_per_s: Rate | None = None
    max_in_flight: InFlight = 20
    status: Literal["disabled"] = Field(default="disabled", description="To enable again, POST to /enable.")
    metadata: Metadata = {}

    _headers = field_validator("headers")(_checked_headers)


def _shown_filter(filter: Json | str | None) -> Json | None:
    return read(filter) if isinstance(filter, str) else filter


class EndpointData(ResourceOut):
    """An endpoint as events tell of it: without its headers, which often carry credentials."""

    object: str = "webhook_endpoint"
    url: str
    events: list[str]
    filter: Annotated[Json | None, BeforeValidator(_shown_filter)]
    description: str
    rate_per_s: float | None
    max_in_flight: int
    signature: Literal["v1", "v1a"]
    status: EndpointStatus
    disabled_reason: str | None
    disabled_at: datetime | None


class EndpointOut(EndpointData):
    headers: dict[str, str] | None


class EndpointWithSecret(EndpointOut):
    """An endpoint with what verifies its deliveries, shown at create and rotate."""

    secret: str | None = Field(description="For v1: `whsec_…`; keep it now. Null for v1a.")
    public_key: str | None = Field(
        description="For v1a: `whpk_…`, also at /.well-known/webhook-keys/{id}. Null for v1."
    )


class DeletedOut(BaseModel):
    """What is left of a deleted resource."""

    id: str
    object: str
    deleted: Literal[True] = True


class RotateBody(Body):
    overlap_s: Annotated[
        int, Field(ge=0, le=MAX_OVERLAP_S, description="How long the old secret goes on signing beside the new.")
    ] = 24 * 3600


class EnableBody(Body):
    held: Literal["all", "none", "since"] = Field(
        default="all", description="What to deliver of what was held; the rest goes to the dead letters."
    )
    since: Timestamp | None = None

    @model_validator(mode="after")
    def _since_goes_with_since(self) -> "EnableBody":
        if (self.held == "since") != (self.since is not None):
            raise ValueError('`since` is given exactly where held is "since"')
        return self


CREATED = EventType("webhook_endpoint.created", EndpointData, "A webhook endpoint was made.")
UPDATED = EventType(
    "webhook_endpoint.updated", EndpointData, "A webhook endpoint was changed, enabled, or given a new secret."
)
DISABLED = EventType(
    "webhook_endpoint.disabled",
    EndpointData,
    "A webhook endpoint was disabled: by a caller, by a 410, or after days of failures.",
)
DELETED = EventType("webhook_endpoint.deleted", EndpointData, "A webhook endpoint was deleted.")
ENDPOINT = Resource(
    noun="webhook_endpoint",
    row=EndpointRow,
    create=EndpointCreate,
    update=EndpointUpdate,
    out=EndpointData,
    scope="webhooks",
    events=(CREATED, UPDATED, DISABLED, DELETED),
    states={
        EndpointStatus.ENABLED: frozenset({EndpointStatus.DISABLED}),
        EndpointStatus.DISABLED: frozenset({EndpointStatus.ENABLED}),
    },
)

router = new_router("/v1/webhook_endpoints", "webhook_endpoints", ENDPOINT)


def shown(unit: UnitOfWork, row: EndpointRow) -> EndpointOut:
    """The endpoint as its owner sees it."""
    headers = orjson.loads(unit.platform.vault.open(row.headers)) if row.headers is not None else None
    return EndpointOut(**EndpointData.model_validate(row).model_dump(), headers=headers)


async def find(unit: UnitOfWork, id: str, *, lock: bool = False) -> EndpointRow:
    """The endpoint with this id. Raises NotFound, for deleted ones too."""
    row: EndpointRow = await store.get(unit, ENDPOINT, id, lock=lock)
    if row.deleted_at is not None:
        raise store.not_found(ENDPOINT)
    return row


async def _judged_target(unit: UnitOfWork, body: EndpointCreate | EndpointUpdate, **_: Any) -> TargetRefused | None:
    return (
        await unit.platform.http_client.check_target(body.url, https_required=unit.caller.env == "live")
        if body.url
        else None
    )


def _refuse_target(unit: UnitOfWork) -> None:
    if unit.prepared is not None:
        raise Unprocessable(unit.prepared.why, code=unit.prepared.code, param="url")


def _columns(unit: UnitOfWork, body: EndpointCreate | EndpointUpdate) -> dict[str, Any]:
    values = store.columns(body)
    if values.get("headers") is not None:
        values["headers"] = unit.platform.vault.seal(orjson.dumps(values["headers"]))
    if "filter" in values:
        values["filter"] = written(values["filter"])
    return values


async def _add_secret(unit: UnitOfWork, row: EndpointRow) -> EndpointWithSecret:
    secret = new_secret() if row.signature == "v1" else new_private_key()
    public = None if row.signature == "v1" else public_key(secret)
    await unit.session.execute(
        text(
            "INSERT INTO spine.endpoint_secrets (workspace_id, endpoint_id, secret, public_key) VALUES (:ws, :id, :secret, :public)"
        ),
        {"ws": unit.workspace_id, "id": row.id, "secret": unit.platform.vault.seal(secret.encode()), "public": public},
    )
    return EndpointWithSecret(
        **shown(unit, row).model_dump(), secret=secret if public is None else None, public_key=public
    )


# One instant ends the old and begins the new, so that no event can be accepted between them and meet neither.
_SUBSCRIBE: Final = text("""
    WITH at AS MATERIALIZED (SELECT clock_timestamp() AS instant), ended AS (
        UPDATE spine.subscriptions s SET valid_to = at.instant FROM at
         WHERE s.workspace_id = :ws AND s.endpoint_id = :id AND s.valid_to = 'infinity'
           AND (s.pattern <> ALL (cast(:patterns AS text[])) OR s.filter IS DISTINCT FROM cast(:filter AS text))
    )
    INSERT INTO spine.subscriptions (workspace_id, endpoint_id, pattern, filter, valid_from)
    SELECT :ws, :id, p, cast(:filter AS text), at.instant FROM at, unnest(cast(:patterns AS text[])) p
     WHERE NOT EXISTS (SELECT FROM spine.subscriptions s
                        WHERE s.workspace_id = :ws AND s.endpoint_id = :id AND s.pattern = p AND s.valid_to = 'infinity'
                          AND s.filter IS NOT DISTINCT FROM cast(:filter AS text))
""")


async def _subscribe(unit: UnitOfWork, id: str, patterns: list[str], filter: str | None) -> None:
    """Make these the endpoint's patterns and filter from now on; what was accepted before goes by the old ones."""
    values = {"ws": unit.workspace_id, "id": id, "patterns": sorted(set(patterns)), "filter": filter}
    await unit.session.execute(_SUBSCRIBE, values)


@router.post(
    "",
    status_code=201,
    openapi_extra=declares("webhooks:write", CREATED, sealed=True),
    summary="Create a webhook endpoint",
)
@prepared_by(_judged_target)
async def create_endpoint(body: EndpointCreate, unit: CurrentUnit) -> EndpointWithSecret:
    _refuse_target(unit)
    row = await store.create(unit, ENDPOINT, **_columns(unit, body))
    await _subscribe(unit, row.id, row.events, row.filter)
    await store.emit_event(unit, ENDPOINT, row, "created")
    return await _add_secret(unit, row)


@router.get("/{id}", openapi_extra=declares("webhooks:read"), summary="Read a webhook endpoint")
async def get_endpoint(id: str, unit: CurrentUnit) -> EndpointOut:
    return shown(unit, await find(unit, id))


@router.get("", openapi_extra=declares("webhooks:read"), summary="List webhook endpoints, newest first")
async def list_endpoints(unit: CurrentUnit, paging: Paging) -> Page[EndpointOut]:
    return await store.page(
        unit, ENDPOINT, paging.cursor, paging.limit, EndpointRow.deleted_at.is_(None), out=lambda row: shown(unit, row)
    )


@router.patch(
    "/{id}",
    openapi_extra=declares("webhooks:write", UPDATED, DISABLED),
    summary="Change a webhook endpoint, or disable it",
)
@prepared_by(_judged_target)
async def update_endpoint(id: str, body: EndpointUpdate, unit: CurrentUnit, if_match: IfMatch = None) -> EndpointOut:
    row = await find(unit, id, lock=True)
    _refuse_target(unit)
    values: dict[str, Any] = _columns(unit, body)
    disabling = values.get("status") == EndpointStatus.DISABLED and row.status == EndpointStatus.ENABLED
    if disabling:
        values |= {"disabled_reason": "by_caller", "disabled_at": await unit.now()}
    if "headers" in values and body.headers == shown(unit, row).headers:
        del values["headers"]  # sealing gives other bytes each time; the same headers are no change
    heard = row.events, row.filter
    if await store.change(unit, ENDPOINT, row, values, version_of(if_match)):
        await store.emit_event(unit, ENDPOINT, row, "disabled" if disabling else "updated")
    if (row.events, row.filter) != heard:
        await _subscribe(unit, id, row.events, row.filter)
    if disabling:
        await unit.session.execute(_HOLD, {"ws": unit.workspace_id, "id": id})
    return shown(unit, row)


_HOLD: Final = text(
    "UPDATE spine.deliveries_open SET state = 'held', due_at = NULL WHERE workspace_id = :ws AND endpoint_id = :id AND leased_by IS NULL"
)
# What is left behind when an endpoint goes, or what its owner does not want delivered, stands in the dead letters.
_BURY: Final = """
    WITH buried AS (
        DELETE FROM spine.deliveries_open WHERE workspace_id = :ws AND endpoint_id = :id AND {which} RETURNING *
    )
    INSERT INTO spine.deliveries_closed
        (workspace_id, id, event_id, type, endpoint_id, state, reason, series, attempts, replay_id, accepted_at, created_at, xid)
    SELECT workspace_id, id, event_id, type, endpoint_id, 'dead', :reason, series, attempts, replay_id, accepted_at, created_at, xid
      FROM buried
"""
_BURY_ALL: Final = text(_BURY.format(which="true"))  # a fixed condition
_BURY_HELD: Final = text(
    _BURY.format(which="state = 'held' AND (cast(:since AS timestamptz) IS NULL OR accepted_at < :since)")
)  # likewise
# Parked, not due: a million of them at the head of what is due would keep everybody's retries waiting.
_RELEASE: Final = text(
    "UPDATE spine.deliveries_open SET state = CASE WHEN attempts = '[]' THEN 'pending' ELSE 'retrying' END, due_at = 'infinity' "
    "WHERE workspace_id = :ws AND endpoint_id = :id AND state = 'held'"
)


@router.delete("/{id}", openapi_extra=declares("webhooks:write", DELETED), summary="Delete a webhook endpoint")
async def delete_endpoint(id: str, unit: CurrentUnit) -> DeletedOut:
    row = await find(unit, id, lock=True)
    await _subscribe(unit, id, [], None)
    await store.change(unit, ENDPOINT, row, {"deleted_at": await unit.now()})
    await unit.session.execute(_BURY_ALL, {"ws": unit.workspace_id, "id": id, "reason": "endpoint_deleted"})
    await store.emit_event(unit, ENDPOINT, row, "deleted")
    return DeletedOut(id=id, object="webhook_endpoint")


@router.post(
    "/{id}/enable", openapi_extra=declares("webhooks:write", UPDATED), summary="Enable a disabled webhook endpoint"
)
async def enable_endpoint(id: str, unit: CurrentUnit, body: EnableBody | None = None) -> EndpointOut:
    wish = body or EnableBody()
    row = await find(unit, id, lock=True)
    if row.status == EndpointStatus.ENABLED:
        raise IllegalTransition("it is enabled already", allowed=[EndpointStatus.DISABLED])
    await store.change(
        unit, ENDPOINT, row, {"status": EndpointStatus.ENABLED, "disabled_reason": None, "disabled_at": None}
    )
    values: Mapping[str, Any] = {"ws": unit.workspace_id, "id": id}
    if wish.held != "all":
        await unit.session.execute(_BURY_HELD, {**values, "since": wish.since, "reason": "held_discarded"})
    await unit.session.execute(_RELEASE, values)
    await unit.session.execute(
        text("UPDATE spine.endpoint_health SET failing_since = NULL WHERE workspace_id = :ws AND endpoint_id = :id"),
        values,
    )
    await store.emit_event(unit, ENDPOINT, row, "updated")
    return shown(unit, row)


@router.post(
    "/{id}/rotate_secret",
    openapi_extra=declares("webhooks:write", UPDATED, sealed=True),
    summary="Give a webhook endpoint a new secret",
)
async def rotate_secret(id: str, unit: CurrentUnit, body: RotateBody | None = None) -> EndpointWithSecret:
    row = await find(unit, id, lock=True)
    await unit.session.execute(
        text(
            "UPDATE spine.endpoint_secrets SET expires_at = now() + :overlap "
            "WHERE workspace_id = :ws AND endpoint_id = :id AND expires_at IS NULL"
        ),
        {"ws": unit.workspace_id, "id": id, "overlap": timedelta(seconds=(body or RotateBody()).overlap_s)},
    )
    row.version += 1  # workers hold secrets by the endpoint's version
    row.updated_at = await unit.now()
    await store.emit_event(unit, ENDPOINT, row, "updated")
    return await _add_secret(unit, row)
