"""Services: what is booked. A service says how long it takes, and when people are reminded of it."""

from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from spine.kernel import store
from spine.kernel.crud import crud_router
from spine.kernel.errors import Conflict
from spine.kernel.events import EventType
from spine.kernel.resource import Body, Metadata, Name, PatchBody, Resource, ResourceOut, TenantRow
from spine.kernel.routes import CurrentUnit, Paging, declares
from spine.kernel.store import Page
from spine.kernel.unit_of_work import UnitOfWork
from spine.notifications.templates import SLUG

ServiceSlug = Annotated[str, StringConstraints(pattern=SLUG.pattern), Field(description="A service's slug.")]
Duration = Annotated[
    int, Field(ge=1, le=31 * 24 * 60, description="Minutes that it takes. A slot for it is at least as long.")
]
Buffer = Annotated[
    int,
    Field(
        ge=0, le=24 * 60, description="Minutes after an appointment in which no other slot of the resource is booked."
    ),
]
OfferMinutes = Annotated[
    int, Field(ge=1, le=7 * 24 * 60, description="Minutes for which a slot is offered to a waiting person.")
]


def _longest_first(minutes: list[int]) -> list[int]:
    if len(set(minutes)) < len(minutes):
        raise ValueError("each reminder stands in the list once")
    return sorted(minutes, reverse=True)


ReminderMinutes = Annotated[
    list[Annotated[int, Field(ge=1, le=60 * 24 * 60)]],
    Field(
        max_length=5,
        description="Minutes before the start at which the contact is reminded. Those that are past at booking are left out.",
    ),
    AfterValidator(_longest_first),
]


class ServiceRow(TenantRow):
    __tablename__ = "services"
    slug: Mapped[str]
    name: Mapped[str]
    duration_min: Mapped[int]
    buffer_min: Mapped[int] = mapped_column(default=0)
    reminder_minutes: Mapped[list[Any]] = mapped_column(JSONB, default=lambda: [1440, 60])
    offer_min: Mapped[int] = mapped_column(default=30)

    constraint_errors = {  # read-only
        "services_slug": lambda: Conflict("a service with this slug exists", code="service_exists", param="slug"),
    }


class ServiceCreate(Body):
    slug: ServiceSlug
    name: Name
    duration_min: Duration
    buffer_min: Buffer = 0
    reminder_minutes: ReminderMinutes = [1440, 60]
    offer_min: OfferMinutes = 30
    metadata: Metadata = {}


class ServiceUpdate(PatchBody):
    """The slug stays: slots and appointments name it."""

    name: Name = ""
    duration_min: Duration = 1
    buffer_min: Buffer = 0
    reminder_minutes: ReminderMinutes = []
    offer_min: OfferMinutes = 30
    metadata: Metadata = {}


class ServiceOut(ResourceOut):
    object: str = "service"
    slug: str
    name: str
    duration_min: int
    buffer_min: int
    reminder_minutes: list[int]
    offer_min: int


CREATED = EventType("service.created", ServiceOut, "A service, which can be booked, was created.")
UPDATED = EventType("service.updated", ServiceOut, "A service was changed.")
SERVICE = Resource(
    noun="service",
    row=ServiceRow,
    create=ServiceCreate,
    update=ServiceUpdate,
    out=ServiceOut,
    scope="calendar",
    events=(CREATED, UPDATED),
)

router = crud_router(SERVICE, "calendar", "create", "get", "update")


async def find_services(unit: UnitOfWork, slugs: set[str]) -> dict[str, ServiceRow]:
    """Return the services with these slugs, by slug. Unknown slugs are left out."""
    if not slugs:
        return {}
    query = select(ServiceRow).where(ServiceRow.workspace_id == unit.workspace_id, ServiceRow.slug.in_(slugs))
    return {row.slug: row for row in await unit.session.scalars(query)}


@router.get("", openapi_extra=declares("calendar:read"), summary="List services, newest first")
async def list_services(unit: CurrentUnit, paging: Paging, slug: ServiceSlug | None = None) -> Page[ServiceOut]:
    conditions = [] if slug is None else [ServiceRow.slug == slug]
    return await store.page(unit, SERVICE, paging.cursor, paging.limit, *conditions, filters=f"{slug}")
