"""Call sessions: their row, the fields that they collect, the models that callers see, and their events."""

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import Field, RootModel, StringConstraints, model_validator
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from products.crm.references import Channel
from spine.directory.addresses import Email, Phone
from spine.kernel.events import EventType
from spine.kernel.resource import Body, Metadata, Name, Resource, ResourceOut, TenantRow

MAX_FIELDS: Final = 100
"""Fields that one session collects."""
MAX_FIELDS_BYTES: Final = 32 * 1024
Status = Literal["open", "finalized", "abandoned"]
FieldName = Annotated[str, StringConstraints(min_length=1, max_length=64)]
FieldValue = (
    Annotated[str, StringConstraints(max_length=2000)]
    | Annotated[int, Field(strict=True)]
    | Annotated[float, Field(strict=True)]
    | Annotated[bool, Field(strict=True)]
    | None
)


class CallSessionRow(TenantRow):
    __tablename__ = "call_sessions"
    contact_id: Mapped[str]
    phone: Mapped[str | None]
    email: Mapped[str | None]
    channel: Mapped[str]
    match: Mapped[str]
    fields: Mapped[dict[str, Any]] = mapped_column(default=dict)
    field_schema: Mapped[list[Any]] = mapped_column(JSONB, default=list)
    status: Mapped[str] = mapped_column(default="open")
    expires_at: Mapped[datetime]
    call_id: Mapped[str | None]


class FieldToCollect(Body):
    """A field that the person should be asked for."""

    name: FieldName
    label: Annotated[str, StringConstraints(max_length=200)] | None = None
    required: bool = True


DEFAULT_SCHEMA: Final = (
    FieldToCollect(name="name", label="Name"),
    FieldToCollect(name="email", label="E-mail address", required=False),
    FieldToCollect(name="interest", label="What they are interested in"),
)


class CallSessionCreate(Body):
    phone: Phone | None = None
    email: Email | None = Field(default=None, description="For channels without a phone number.")
    channel: Channel
    name: Name | None = Field(default=None, description="For a new contact. Without it, the phone or the email.")
    field_schema: Annotated[list[FieldToCollect], Field(max_length=50)] | None = Field(
        default=None, description="What is to be collected. Without it: name, email and interest."
    )
    metadata: Metadata = {}

    @model_validator(mode="after")
    def _has_address(self) -> "CallSessionCreate":
        if self.phone is None and self.email is None:
            raise ValueError("give a phone or an email, so that the contact can be matched")
        return self


class CollectedFields(RootModel[Annotated[dict[FieldName, FieldValue], Field(min_length=1, max_length=MAX_FIELDS)]]):
    """A flat map: from a field's name to a text, a number, a boolean or null."""


class CallSessionOut(ResourceOut):
    object: str = "call_session"
    contact_id: str
    match: Literal["existing", "new"] = Field(
        description="`new` if opening this session created the contact: for one of any number of sessions."
    )
    phone: str | None
    email: str | None
    channel: str
    fields: dict[str, Any] = Field(description="What was collected so far.")
    field_schema: list[FieldToCollect]
    status: Status
    expires_at: datetime
    call_id: str | None = Field(description="The call that it was finalized to.")


class CallSessionFieldsCollected(CallSessionOut):
    """A session, and the fields that were collected just now."""

    collected: dict[str, Any]


OPENED = EventType("call_session.opened", CallSessionOut, "A call session was opened, and its contact matched.")
FIELDS_COLLECTED = EventType(
    "call_session.fields_collected", CallSessionFieldsCollected, "An open call session collected fields."
)
ABANDONED = EventType("call_session.abandoned", CallSessionOut, "The time of an open call session was over.")
CALL_SESSION = Resource(
    noun="call_session",
    row=CallSessionRow,
    create=CallSessionCreate,
    update=None,
    out=CallSessionOut,
    scope="crm",
    events=(OPENED, FIELDS_COLLECTED, ABANDONED),
    states={"open": frozenset({"finalized", "abandoned"}), "finalized": frozenset(), "abandoned": frozenset()},
)


def session_out(row: CallSessionRow, now: datetime) -> CallSessionOut:
    """Return the session as it is now: one whose time is over is abandoned, whether its job ran yet or not."""
    out = CallSessionOut.model_validate(row)
    expired = row.status == "open" and row.expires_at <= now
    return out.model_copy(update={"status": "abandoned"}) if expired else out
