"""Waitlist entries: their rows, states and events, and the models that callers see."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator
from sqlalchemy import BigInteger, Identity
from sqlalchemy.orm import Mapped, mapped_column

from products.calendar.services import ServiceSlug
from spine.kernel import store
from spine.kernel.events import EventType
from spine.kernel.resource import Body, Metadata, Out, Resource, ResourceOut, TenantRow, Timestamp

Status = Literal["waiting", "offered", "booked", "withdrawn"]
Reference = Annotated[str, StringConstraints(max_length=64)]


class WaitlistEntryRow(TenantRow):
    """`queue_number` is the order of joining. An offered entry has a slot and an expiry."""

    __tablename__ = "waitlist_entries"
    queue_number: Mapped[int] = mapped_column(BigInteger, Identity(always=True))
    service: Mapped[str]
    resource_id: Mapped[str | None]
    contact_id: Mapped[str]
    window_from: Mapped[datetime]
    window_to: Mapped[datetime]
    status: Mapped[str] = mapped_column(default="waiting")
    slot_id: Mapped[str | None]
    offer_expires_at: Mapped[datetime | None]
    appointment_id: Mapped[str | None]

    constraint_errors = {  # read-only
        "waitlist_entries_service": lambda: store.reference_not_found("service"),
        "waitlist_entries_resource": lambda: store.reference_not_found("resource_id"),
        "waitlist_entries_contact": lambda: store.reference_not_found("contact_id"),
    }

    @property
    def window(self) -> dict[str, datetime]:
        """The time in which the contact wants a slot."""
        return {"from": self.window_from, "to": self.window_to}


class Window(Body):
    """The slot starts from `from` to before `to`."""

    from_: Timestamp = Field(alias="from")
    to: Timestamp

    @model_validator(mode="after")
    def _ordered(self) -> "Window":
        if self.to <= self.from_:
            raise ValueError("to must lie after from")
        return self


class WindowOut(Out):
    from_: datetime = Field(alias="from")
    to: datetime


class WaitlistEntryCreate(Body):
    service: ServiceSlug
    resource_id: Reference | None = Field(default=None, description="Without it, any resource will do.")
    contact_id: Reference
    window: Window
    metadata: Metadata = {}


class WaitlistEntryOut(ResourceOut):
    object: str = "waitlist_entry"
    service: str
    resource_id: str | None
    contact_id: str
    window: WindowOut
    status: Status
    slot_id: str | None = Field(description="The slot that is offered, or that was booked.")
    offer_expires_at: datetime | None
    appointment_id: str | None


class WaitlistOffered(WaitlistEntryOut):
    """An entry with its offer, and the messages that tell of it."""

    message_ids: list[str]


JOINED = EventType("waitlist.joined", WaitlistEntryOut, "A contact joined the waitlist.")
OFFERED = EventType("waitlist.offered", WaitlistOffered, "A slot that became free was offered to a waiting contact.")
EXPIRED = EventType("waitlist.expired", WaitlistEntryOut, "An offer expired; the contact waits on.")
BOOKED = EventType("waitlist.booked", WaitlistEntryOut, "An offer was claimed, and the slot is booked.")
WITHDRAWN = EventType("waitlist.withdrawn", WaitlistEntryOut, "A contact left the waitlist.")
WAITLIST_ENTRY = Resource(
    noun="waitlist_entry",
    row=WaitlistEntryRow,
    create=WaitlistEntryCreate,
    update=None,
    out=WaitlistEntryOut,
    scope="calendar",
    events=(JOINED, OFFERED, EXPIRED, BOOKED, WITHDRAWN),
    states={
        "waiting": frozenset({"offered", "withdrawn"}),
        "offered": frozenset({"waiting", "booked", "withdrawn"}),
        "booked": frozenset(),
        "withdrawn": frozenset(),
    },
)
