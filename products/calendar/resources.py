"""Resources: the people, rooms and machines whose time is booked. Each has its own time zone."""

from typing import Annotated

from pydantic import Field, StringConstraints
from sqlalchemy.orm import Mapped, mapped_column

from spine.kernel import store
from spine.kernel.crud import crud_router
from spine.kernel.events import EventType
from spine.kernel.resource import Body, Metadata, Name, PatchBody, Resource, ResourceOut, TenantRow
from spine.notifications.channel_policies import Zone

UserId = Annotated[str, StringConstraints(max_length=64), Field(description="The user whose time it is.")]
TimeZone = Annotated[Zone, Field(description="A zone of the IANA database. Notices give times in this zone.")]


class CalendarResourceRow(TenantRow):
    __tablename__ = "calendar_resources"
    name: Mapped[str]
    user_id: Mapped[str | None]
    time_zone: Mapped[str] = mapped_column(default="UTC")

    constraint_errors = {  # read-only
        "calendar_resources_user": lambda: store.reference_not_found("user_id"),
    }


class CalendarResourceCreate(Body):
    name: Name
    user_id: UserId | None = None
    time_zone: TimeZone = "UTC"
    metadata: Metadata = {}


class CalendarResourceUpdate(PatchBody):
    name: Name = ""
    user_id: UserId | None = None
    time_zone: TimeZone = "UTC"
    metadata: Metadata = {}


class CalendarResourceOut(ResourceOut):
    object: str = "resource"
    name: str
    user_id: str | None
    time_zone: str


CREATED = EventType("resource.created", CalendarResourceOut, "A resource, whose time can be booked, was created.")
UPDATED = EventType("resource.updated", CalendarResourceOut, "A resource was changed.")
RESOURCE = Resource(
    noun="resource",
    row=CalendarResourceRow,
    create=CalendarResourceCreate,
    update=CalendarResourceUpdate,
    out=CalendarResourceOut,
    scope="calendar",
    events=(CREATED, UPDATED),
)

router = crud_router(RESOURCE, "calendar", "create", "get", "list", "update")
