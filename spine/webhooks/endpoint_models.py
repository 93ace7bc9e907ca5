"""Webhook endpoints as rows, as request and response bodies, and as a resource with states and events."""

import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, StringConstraints, field_validator, model_validator
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import Double, LargeBinary, Text

from spine.kernel.events import EventType
from spine.kernel.resource import Body, Metadata, PatchBody, Resource, ResourceOut, TenantRow, Timestamp
from spine.webhooks.filters import Filter, Json, read
from spine.webhooks.patterns import Pattern

MAX_OVERLAP_S: Final = 7 * 24 * 3600
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,100}")
_HEADER_VALUE: Final = re.compile(r"[\x20-\x7e]{0,1024}")
_RESERVED_HEADERS: Final = frozenset(
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
Headers = Annotated[dict[str, str], Field(max_length=20, description="Sent with every delivery, beside ours.")]


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
    discard_before: Mapped[datetime | None]


def _check_headers(headers: dict[str, str] | None) -> dict[str, str] | None:
    for name, value in (headers or {}).items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no header name")
        if name.lower() in _RESERVED_HEADERS:
            raise ValueError(f"{name} is set by us or by HTTP itself; choose another name")
        if not _HEADER_VALUE.fullmatch(value):
            raise ValueError(f"the value of {name} must be up to 1,024 visible ASCII characters")
    return headers


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

    _headers = field_validator("headers")(_check_headers)


class EndpointUpdate(PatchBody):
    url: Annotated[str, StringConstraints(min_length=1, max_length=2048)] = ""
    events: Patterns = []
    filter: Filter | None = None
    description: Description = ""
    headers: Headers | None = Field(
        default=None,
        description="Replaces all custom headers. The value `********` keeps the present value of its header.",
    )
    rate_per_s: Rate | None = None
    max_in_flight: InFlight = 20
    status: Literal["disabled"] = Field(default="disabled", description="To enable again, POST to /enable.")
    metadata: Metadata = {}

    _headers = field_validator("headers")(_check_headers)


def _decode_filter(filter: Json | str | None) -> Json | None:
    return read(filter) if isinstance(filter, str) else filter


class EndpointData(ResourceOut):
    """An endpoint as events tell of it: without its headers, which often carry credentials."""

    object: str = "webhook_endpoint"
    url: str
    events: list[str]
    filter: Annotated[Json | None, BeforeValidator(_decode_filter)]
    description: str
    rate_per_s: float | None
    max_in_flight: int
    signature: Literal["v1", "v1a"]
    status: EndpointStatus
    disabled_reason: str | None
    disabled_at: datetime | None


class EndpointOut(EndpointData):
    headers: dict[str, str] | None = Field(
        description="The names of the custom headers. Values are never shown again; `********` stands for each."
    )


class EndpointWithSecret(EndpointOut):
    """An endpoint with what verifies its deliveries, shown at create and rotate."""

    secret: str | None = Field(description="For v1: `whsec_…`; keep it now. Null for v1a.")
    public_key: str | None = Field(
        description="For v1a: `whpk_…`, also at /.well-known/webhook-keys/{id}. Null for v1."
    )


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
    def _require_since_with_since(self) -> "EnableBody":
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
