"""Booking pages: hosted, branded pages where people book by themselves (K-12). A page's slug leads to it from anywhere."""

from typing import Annotated, Any, Literal

import asyncpg
from pydantic import Field
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from products.calendar.services import ServiceSlug, find_services
from spine.kernel import ids, public_slugs, store
from spine.kernel.brands import Brand, BrandOut
from spine.kernel.crud import crud_router
from spine.kernel.errors import FieldError, Unprocessable
from spine.kernel.events import EventType
from spine.kernel.public_slugs import PublicSlug, PublicSubject
from spine.kernel.resource import Body, Metadata, PatchBody, Resource, ResourceOut, TenantRow
from spine.kernel.routes import CurrentUnit, IfMatch, Paging, declares, version_of
from spine.kernel.store import Page
from spine.kernel.unit_of_work import UnitOfWork

Status = Literal["active", "disabled"]
Services = Annotated[
    list[ServiceSlug],
    Field(min_length=1, max_length=50, description="The slugs of the services that the page shows, in its order."),
]


class BookingPageRow(TenantRow):
    __tablename__ = "booking_pages"
    slug: Mapped[str]
    brand: Mapped[dict[str, Any]]
    services: Mapped[list[Any]] = mapped_column(JSONB)
    status: Mapped[str] = mapped_column(default="active")


class BookingPageCreate(Body):
    slug: PublicSlug
    brand: Brand
    services: Services
    metadata: Metadata = {}


class BookingPageUpdate(PatchBody):
    """The slug stays: its URL is known to people."""

    brand: Brand = Field(default_factory=lambda: Brand(name="page"))
    services: Services = []
    status: Status = "active"
    metadata: Metadata = {}


class BookingPageOut(ResourceOut):
    object: str = "booking_page"
    slug: str
    url: str = Field(description="Where people find the page.")
    brand: BrandOut
    services: list[str]
    status: Status


CREATED = EventType("booking_page.created", BookingPageOut, "A booking page was created, and is live.")
UPDATED = EventType("booking_page.updated", BookingPageOut, "A booking page was changed, disabled or activated.")
BOOKING_PAGE = Resource(
    noun="booking_page",
    row=BookingPageRow,
    create=BookingPageCreate,
    update=BookingPageUpdate,
    out=BookingPageOut,
    scope="calendar",
    events=(CREATED, UPDATED),
)

router = crud_router(BOOKING_PAGE, "calendar")


def page_out(unit: UnitOfWork, row: BookingPageRow) -> BookingPageOut:
    """Return the page as callers see it, with its URL."""
    row.url = f"{unit.platform.http.url}/b/{row.slug}"  # type: ignore[attr-defined]  # no column; it follows from the slug
    return BookingPageOut.model_validate(row)


async def find_page(pool: "asyncpg.Pool[asyncpg.Record]", slug: str) -> PublicSubject | None:
    """Return the workspace and the id of the page with this slug, before a workspace is known; None if there is none."""
    return await public_slugs.find(pool, "page", slug)


async def _refuse_unknown_services(unit: UnitOfWork, services: list[str]) -> None:
    """Raise Unprocessable that names each service that is unknown or stands in the list twice."""
    known = await find_services(unit, set(services))
    errors = [
        FieldError(param=f"services.{n}", code="reference_not_found", detail=f"there is no service {slug}")
        for n, slug in enumerate(services)
        if slug not in known
    ] + [
        FieldError(param=f"services.{n}", code="duplicate", detail=f"{slug} stands in the list twice")
        for n, slug in enumerate(services)
        if slug in services[:n]
    ]
    if errors:
        first = errors[0]
        raise Unprocessable(f"{first.param}: {first.detail}", code=first.code, param=first.param, errors=errors)


@router.post(
    "",
    status_code=201,
    openapi_extra=declares("calendar:write", CREATED),
    summary="Create a booking page; it is live at once",
)
async def create_booking_page(body: BookingPageCreate, unit: CurrentUnit) -> BookingPageOut:
    await _refuse_unknown_services(unit, body.services)
    id = ids.mint(BOOKING_PAGE.prefix)
    await public_slugs.claim(unit, "page", body.slug, id)
    row = await store.create(unit, BOOKING_PAGE, id=id, **(store.columns(body) | {"brand": body.brand.model_dump()}))
    out = page_out(unit, row)
    unit.emit(CREATED, out, sequence=row.version)
    return out


@router.get("", openapi_extra=declares("calendar:read"), summary="List booking pages, newest first")
async def list_booking_pages(unit: CurrentUnit, paging: Paging) -> Page[BookingPageOut]:
    return await store.page(unit, BOOKING_PAGE, paging.cursor, paging.limit, out=lambda row: page_out(unit, row))


@router.get("/{id}", openapi_extra=declares("calendar:read"), summary="Read a booking page")
async def get_booking_page(id: str, unit: CurrentUnit) -> BookingPageOut:
    return page_out(unit, await store.get(unit, BOOKING_PAGE, id))


@router.patch(
    "/{id}",
    openapi_extra=declares("calendar:write", UPDATED),
    summary="Change a booking page, disable it or activate it",
)
async def update_booking_page(
    id: str, body: BookingPageUpdate, unit: CurrentUnit, if_match: IfMatch = None
) -> BookingPageOut:
    row = await store.get(unit, BOOKING_PAGE, id, lock=True)
    values = store.columns(body)
    if "brand" in values:
        values["brand"] = body.brand.model_dump()
    if "services" in values:
        await _refuse_unknown_services(unit, body.services)
    changed = await store.change(unit, BOOKING_PAGE, row, values, version_of(if_match))
    out = page_out(unit, row)
    if changed:
        unit.emit(UPDATED, out, sequence=row.version)
    return out
