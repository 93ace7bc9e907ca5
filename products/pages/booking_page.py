"""`/b/{slug}`: the booking page (requirements K-11 to K-13). It books with the function that every other door calls.

GET: services ─► free times and details ─► POST ─► 303 to the appointment's own page
                                            └─ a time that was lost: the page again, 409, with what was typed and fresh times
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fastapi import Request, Response
from fastapi.responses import RedirectResponse

from products.calendar.booking import book
from products.calendar.booking_pages import BookingPageRow, find_page
from products.pages import links, submissions
from products.pages.framing import ANYWHERE, Framing
from products.pages.links import Link
from products.pages.offers import offered_services, offered_times
from products.pages.page_routes import PUBLIC, page_router
from products.pages.page_times import zone_names
from products.pages.render_tokens import Kind
from products.pages.rendering import Look, html, protections
from products.pages.sites import Site, no_page, require_slug
from products.pages.submissions import Returned, carry_out, issue_token, read_render, returned
from products.pages.submitted_fields import read_fields, text_of
from products.pages.visitor import Errors, Visitor, matched_contact, read_visitor
from products.pages.workspace_reads import read_in
from spine.kernel import ids
from spine.kernel.errors import SpineError
from spine.kernel.platform import Platform
from spine.kernel.unit_of_work import UnitOfWork

_TITLE: Final = "Book an appointment"
_VALUES: Final = ("name", "email", "phone", "service", "slot", "tz", "after")

router = page_router()


@dataclass(frozen=True, slots=True)
class BookingSite(Site):
    """A booking page, and the slugs of the services that it offers."""

    services: tuple[str, ...]


async def find_site(request: Request, slug: str) -> BookingSite:
    """Return the active page with this slug. Raises NotFound."""
    require_slug(slug)
    platform: Platform = request.app.state.platform
    found = await find_page(platform.pool, slug)
    if found is None:
        raise no_page()

    async def read(unit: UnitOfWork) -> BookingPageRow | None:
        return await unit.session.get(BookingPageRow, (found.workspace_id, found.subject_id))

    page = await read_in(request, found, read)
    if page is None or page.status != "active":
        raise no_page()
    return BookingSite(
        Kind.BOOKING,
        slug,
        found.workspace_id,
        found.organisation_id,
        found.env,
        Look.of(page.brand),
        Framing(ANYWHERE),
        tuple(page.services),
    )


@router.get("/b/{slug}", openapi_extra=PUBLIC)
async def booking_page(slug: str, request: Request) -> Response:
    platform: Platform = request.app.state.platform
    await submissions.limit_views(request, platform)
    site = await find_site(request, slug)
    query = request.query_params
    values = {name: query.get(name, "")[:100] if name in ("service", "tz", "after") else "" for name in _VALUES}
    return await _show(request, site, values)


@router.post("/b/{slug}", openapi_extra=PUBLIC)
async def submit_booking(slug: str, request: Request) -> Response:
    platform: Platform = request.app.state.platform
    await submissions.limit_submissions(request, platform)
    fields = await read_fields(request)
    site = await find_site(request, slug)
    values = {name: text_of(fields, name) for name in _VALUES}
    errors: Errors = {}
    try:
        render = read_render(request, platform, site, fields)
        visitor = _read(site, values, fields, errors)
        if errors:
            return await _show(request, site, values, Returned(422, errors))
        chosen = {name: values[name] for name in ("slot", "service")}
        submitted = chosen | {"name": visitor.name, "phone": visitor.phone, "email": visitor.email}
        path = await carry_out(
            request, platform, site, render, submitted, lambda unit: _book(unit, site, visitor, **chosen)
        )
    except SpineError as error:
        return await _show(request, site, values, returned(error, fields))
    return RedirectResponse(path, 303, {**protections(), "Cache-Control": "no-store"})


def _read(site: BookingSite, values: Mapping[str, str], fields: Mapping[str, str], errors: Errors) -> Visitor:
    if values["service"] not in site.services:
        errors["service"] = "Choose a service that can be booked here."
    if not ids.is_id(values["slot"], ids.PREFIXES["slot"]):
        errors["slot"] = "Choose a time."
    return read_visitor(fields, errors)


async def _book(unit: UnitOfWork, site: Site, visitor: Visitor, slot: str, service: str) -> str:
    contact = await matched_contact(unit, visitor)
    made = await book(unit, slot_id=slot, contact_id=contact.id, service=service, booked_via="page")
    link = Link(site.workspace_id, site.organisation_id, site.env, made.id)
    return f"{site.path}/{links.seal(unit.platform.vault, site.kind, site.slug, link)}"


async def _show(
    request: Request, site: BookingSite, values: Mapping[str, str], back: Returned | None = None
) -> Response:
    """Return the page: its services or, once one is chosen, the free times and the form."""
    platform: Platform = request.app.state.platform
    back = back or Returned(200, {})

    async def read(unit: UnitOfWork) -> dict[str, Any]:
        services = await offered_services(unit, site.services)
        wanted = values["service"] or (services[0].slug if len(services) == 1 else "")
        chosen = next((service for service in services if service.slug == wanted), None)
        if chosen is None:
            return {"services": services, "chosen": None, "days": [], "zone_name": "", "later": ""}
        times = await offered_times(unit, chosen.slug, values["after"], values["tz"])
        return {
            "services": services,
            "chosen": chosen,
            "days": times.days,
            "zone_name": times.zone_name,
            "later": times.later,
        }

    shown = await read_in(request, site, read)
    return html(
        "booking.html",
        site.look,
        site.framing,
        status=back.status,
        headers=back.headers,
        title=_TITLE,
        test=site.env == "test",
        path=site.path,
        token=back.token or issue_token(platform, site),
        values=values,
        errors=back.errors,
        problem=back.problem,
        zones=zone_names(),
        **shown,
    )
