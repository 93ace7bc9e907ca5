"""Appointments: their rows, states and events, and the models that callers see."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints
from sqlalchemy.dialects.postgresql import JSONB, TSTZRANGE, Range
from sqlalchemy.orm import Mapped, mapped_column

from products.calendar.services import ServiceSlug
from spine.kernel import store
from spine.kernel.events import Actor, EventType
from spine.kernel.resource import Body, Metadata, Resource, ResourceOut, TenantRow

SlotId = Annotated[str, StringConstraints(max_length=64)]
Reason = Annotated[str, StringConstraints(min_length=1, max_length=500, strip_whitespace=True)]
BookedVia = Literal["agent", "page", "api", "staff"]
Status = Literal["booked", "cancelled", "completed", "no_show"]


class AppointmentRow(TenantRow):
    """`begins_at` is the start, by the test clock. `occupied` is the time of the slot and the buffer after it."""

    __tablename__ = "appointments"
    slot_id: Mapped[str]
    resource_id: Mapped[str]
    contact_id: Mapped[str]
    service: Mapped[str | None]
    status: Mapped[str] = mapped_column(default="booked")
    booked_via: Mapped[str]
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime]
    begins_at: Mapped[datetime]
    occupied: Mapped[Range[datetime]] = mapped_column(TSTZRANGE, deferred=True)
    cancel_reason: Mapped[str | None]
    follow_up: Mapped[bool] = mapped_column(default=False)
    history: Mapped[list[Any]] = mapped_column(JSONB, default=list)

    constraint_errors = {  # read-only
        "appointments_contact": lambda: store.reference_not_found("contact_id"),
    }


class AppointmentCreate(Body):
    slot_id: SlotId
    contact_id: Annotated[str, StringConstraints(max_length=64)]
    service: ServiceSlug | None = Field(default=None, description="Without it, the slot's service is booked.")
    booked_via: BookedVia = "api"
    metadata: Metadata = {}


class RescheduleBody(Body):
    slot_id: SlotId


class CancelBody(Body):
    reason: Reason


class HistoryEntry(BaseModel):
    """One thing that happened to an appointment."""

    at: datetime
    kind: Literal["booked", "rescheduled", "cancelled", "completed", "no_show"]
    actor: Actor
    from_slot_id: str | None = None
    to_slot_id: str | None = None
    reason: str | None = None
    message_ids: list[str] = []


class AppointmentOut(ResourceOut):
    object: str = "appointment"
    slot_id: str
    resource_id: str
    contact_id: str
    service: str | None
    status: Status
    booked_via: BookedVia
    starts_at: datetime
    ends_at: datetime
    cancel_reason: str | None
    follow_up: bool = Field(description="True after a no-show: somebody should get in touch.")
    history: list[HistoryEntry] = Field(description="What happened, oldest first. Entries are only appended.")


class SlotTime(BaseModel):
    """Where and when an appointment was, or is."""

    slot_id: str
    resource_id: str
    starts_at: datetime
    ends_at: datetime


class AppointmentRescheduled(AppointmentOut):
    """An appointment in its new slot, and the messages that tell of it."""

    from_: SlotTime = Field(alias="from")
    to: SlotTime
    message_ids: list[str]


class AppointmentCancelled(AppointmentOut):
    """A cancelled appointment, and the messages that tell of it."""

    message_ids: list[str]


class AppointmentReminderSent(AppointmentOut):
    """An appointment, and the reminder that a provider accepted."""

    message_id: str
    minutes_before: int


CREATED = EventType("appointment.created", AppointmentOut, "An appointment was created.")
BOOKED = EventType("appointment.booked", AppointmentOut, "A slot was won; committed with the slot's count.")
RESCHEDULED = EventType(
    "appointment.rescheduled",
    AppointmentRescheduled,
    "An appointment moved: the new slot was won, the old one released.",
)
CANCELLED = EventType("appointment.cancelled", AppointmentCancelled, "An appointment was cancelled, for a reason.")
COMPLETED = EventType("appointment.completed", AppointmentOut, "An appointment took place.")
NO_SHOW = EventType("appointment.no_show", AppointmentOut, "The contact did not come; flagged for follow-up.")
REMINDER_SENT = EventType("appointment.reminder_sent", AppointmentReminderSent, "A provider accepted a reminder.")
APPOINTMENT = Resource(
    noun="appointment",
    row=AppointmentRow,
    create=AppointmentCreate,
    update=None,
    out=AppointmentOut,
    scope="calendar",
    events=(CREATED, BOOKED, RESCHEDULED, CANCELLED, COMPLETED, NO_SHOW, REMINDER_SENT),
    states={
        "booked": frozenset({"cancelled", "completed", "no_show"}),
        "cancelled": frozenset(),
        "completed": frozenset(),
        "no_show": frozenset(),
    },
)
