"""`/b/{slug}/{link}`: the page behind the link of an appointment: look at it, put it into a calendar, cancel it, or move it.

The link is the only right to it: it is sealed, while the appointment's id could be guessed (conventions 2.3).
"""

from dataclasses import dataclass
from typing import Final

from fastapi import Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy import select

from products.calendar.appointment_changes import cancel_appointment
from products.calendar.appointment_models import APPOINTMENT, AppointmentRow, CancelBody
from products.calendar.booking_pages import BookingPageRow
from products.calendar.resources import CalendarResourceRow
from products.calendar.services import find_services
from products.pages import links, submissions
from products.pages.calendar_file import MEDIA_TYPE, Entry, calendar_file
from products.pages.framing import ANYWHERE, Framing
from products.pages.links import Link
from products.pages.page_routes import PUBLIC, page_router
from products.pages.page_times import span_text, zone, zone_text
from products.pages.render_tokens import Kind
from products.pages.rendering import Look, html, protections
from products.pages.sites import Site
from products.pages.submissions import Returned, carry_out, issue_token, read_render, returned
from products.pages.submitted_fields import read_fields, text_of
from products.pages.visitor import act_as
from products.pages.workspace_reads import read_in
from spine.kernel import store
from spine.kernel.errors import SpineError
from spine.kernel.platform import Platform
from spine.kernel.unit_of_work import UnitOfWork

_TITLES: Final = {
    "booked": "Your appointment is booked",
    "cancelled": "Your appointment is cancelled",
    "completed": "Your appointment took place",
    "no_show": "Your appointment was missed",
}
_DEFAULT_REASON: Final = "cancelled by the contact on the booking page"
_MAX_REASON_CHARS: Final = 300

router = page_router()


@dataclass(frozen=True, slots=True)
class ShownAppointment:
    """An appointment with what its page says of it."""

    row: AppointmentRow
    service: str
    resource: str
    time_zone: str
    look: Look


@router.get("/b/{slug}/{link}", openapi_extra=PUBLIC)
async def appointment_page(slug: str, link: str, request: Request) -> Response:
    platform: Platform = request.app.state.platform
    await submissions.limit_views(request, platform)
    return await _show(request, slug, link, links.unseal(platform.vault, Kind.BOOKING, slug, link))


@router.get("/b/{slug}/{link}/appointment.ics", openapi_extra=PUBLIC)
async def appointment_file(slug: str, link: str, request: Request) -> Response:
    platform: Platform = request.app.state.platform
    await submissions.limit_views(request, platform)
    shown = await read_appointment(request, slug, links.unseal(platform.vault, Kind.BOOKING, slug, link))
    row = shown.row
    entry = Entry(
        uid=row.id,
        sequence=row.version - 1,
        summary=f"{shown.service}, {shown.look.name or shown.resource}",
        starts_at=row.starts_at,
        ends_at=row.ends_at,
        stamp=row.updated_at,
        cancelled=row.status == "cancelled",
    )
    return Response(calendar_file(entry), headers={**protections(), "Cache-Control": "no-store"}, media_type=MEDIA_TYPE)


@router.post("/b/{slug}/{link}/cancel", openapi_extra=PUBLIC)
async def submit_cancellation(slug: str, link: str, request: Request) -> Response:
    platform: Platform = request.app.state.platform
    await submissions.limit_submissions(request, platform)
    fields = await read_fields(request)
    to = links.unseal(platform.vault, Kind.BOOKING, slug, link)
    site = link_site(slug, to)
    reason = text_of(fields, "reason")[:_MAX_REASON_CHARS] or _DEFAULT_REASON

    async def work(unit: UnitOfWork) -> str:
        await act_as_its_contact(unit, to.id)
        await cancel_appointment(to.id, CancelBody(reason=reason), unit)
        return f"{site.path}/{link}"

    try:
        render = read_render(request, platform, site, fields, subject=f"/{to.id}")
        path = await carry_out(request, platform, site, render, {"id": to.id, "reason": reason}, work)
    except SpineError as error:
        return await _show(request, slug, link, to, returned(error, fields))
    return RedirectResponse(path, 303, {**protections(), "Cache-Control": "no-store"})


async def act_as_its_contact(unit: UnitOfWork, id: str) -> None:
    """Make the appointment's contact the actor. The row itself is read by who locks it, so that nothing of it is outdated."""
    query = select(AppointmentRow.contact_id).where(
        AppointmentRow.workspace_id == unit.workspace_id, AppointmentRow.id == id
    )
    contact_id = await unit.session.scalar(query)
    if contact_id is None:
        raise store.not_found(APPOINTMENT)
    act_as(unit, contact_id)


def link_site(slug: str, to: Link) -> Site:
    """Return the page of a link. It need not be active any more: appointments stay when a page goes."""
    return Site(Kind.BOOKING, slug, to.workspace_id, to.organisation_id, to.env, Look(), Framing(ANYWHERE))


async def read_appointment(request: Request, slug: str, to: Link) -> ShownAppointment:
    """Return the appointment that a link leads to. Raises NotFound."""

    async def read(unit: UnitOfWork) -> ShownAppointment:
        row: AppointmentRow = await store.get(unit, APPOINTMENT, to.id)
        services = await find_services(unit, {row.service} if row.service else set())
        resource = await unit.session.get_one(CalendarResourceRow, (to.workspace_id, row.resource_id))
        page = await unit.session.scalar(
            select(BookingPageRow).where(BookingPageRow.workspace_id == to.workspace_id, BookingPageRow.slug == slug)
        )
        name = services[row.service].name if row.service in services else row.service or "Appointment"
        return ShownAppointment(row, name, resource.name, resource.time_zone, Look.of(page.brand) if page else Look())

    return await read_in(request, to, read)


async def _show(request: Request, slug: str, link: str, to: Link, back: Returned | None = None) -> Response:
    platform: Platform = request.app.state.platform
    back = back or Returned(200, {})
    shown, site = await read_appointment(request, slug, to), link_site(slug, to)
    row, in_zone = shown.row, zone("", shown.time_zone)
    start = row.starts_at.astimezone(in_zone)
    return html(
        "appointment.html",
        shown.look,
        site.framing,
        status=back.status,
        headers=back.headers,
        title=_TITLES[row.status],
        private=True,
        test=to.env == "test",
        page_path=site.path,
        path=f"{site.path}/{link}",
        token=back.token or issue_token(platform, site, f"/{to.id}"),
        problem=back.problem,
        booked=row.status == "booked",
        service=shown.service,
        resource=shown.resource,
        reference=row.id,
        starts_at=start,
        when=span_text(row.starts_at, row.ends_at, in_zone),
        zone=zone_text(start, in_zone.key),
    )
