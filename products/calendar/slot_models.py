"""Slots: their rows, and the models that callers see."""

from datetime import datetime, timedelta
from typing import Annotated, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator
from sqlalchemy.orm import Mapped, mapped_column

from products.calendar.services import ServiceSlug
from spine.kernel.events import EventType
from spine.kernel.resource import Body, Metadata, PatchBody, Resource, ResourceOut, TenantRow, Timestamp

MAX_SLOTS: Final = 500
"""Slots that one request creates."""
MAX_LENGTH: Final = timedelta(days=31)
Capacity = Annotated[int, Field(ge=1, le=10_000, description="How many appointments the slot takes.")]
ResourceId = Annotated[str, StringConstraints(max_length=64)]
Status = Literal["open", "full", "closed"]


class SlotRow(TenantRow):
    """`bookable_until` is the start, by the test clock. `status` is open or closed; full follows from the numbers."""

    __tablename__ = "slots"
    resource_id: Mapped[str]
    service: Mapped[str | None]
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime]
    bookable_until: Mapped[datetime]
    capacity: Mapped[int]
    booked: Mapped[int] = mapped_column(default=0)
    status: Mapped[str] = mapped_column(default="open")


class SlotCreate(Body):
    resource_id: ResourceId
    service: ServiceSlug | None = Field(
        default=None, description="Without it, any service that fits in is booked here."
    )
    starts_at: Timestamp
    ends_at: Timestamp = Field(description="Not part of the slot: another one may start at this time.")
    capacity: Capacity = 1
    metadata: Metadata = {}


class SlotsCreate(Body):
    slots: Annotated[list[SlotCreate], Field(min_length=1, max_length=MAX_SLOTS)]


class SlotUpdate(PatchBody):
    capacity: Capacity = 1
    metadata: Metadata = {}


class SlotOut(ResourceOut):
    object: str = "slot"
    resource_id: str
    service: str | None
    starts_at: datetime
    ends_at: datetime
    capacity: int
    booked: int
    status: Status

    @model_validator(mode="after")
    def _full(self) -> Self:
        if self.status == "open" and self.booked >= self.capacity:
            self.status = "full"
        return self


class SlotReleased(SlotOut):
    """A slot with room in it again."""

    released: int = Field(description="How many places became free.")


CREATED = EventType("slot.created", SlotOut, "A slot was created.")
UPDATED = EventType("slot.updated", SlotOut, "A slot's capacity or metadata was changed.")
RELEASED = EventType(
    "slot.released",
    SlotReleased,
    "Places of an open slot became free: an appointment was cancelled or rescheduled, or the capacity was raised.",
)
CLOSED = EventType("slot.closed", SlotOut, "A slot was closed: it takes no further appointments; those it has stay.")
SLOT = Resource(
    noun="slot",
    row=SlotRow,
    create=None,
    update=SlotUpdate,
    out=SlotOut,
    scope="calendar",
    events=(CREATED, UPDATED, RELEASED, CLOSED),
)
