"""`/b/{slug}/{link}/move`: another time for an appointment. If it is lost to somebody, the old one is kept (K-06)."""

from fastapi import Request, Response
from fastapi.responses import RedirectResponse

from products.calendar.appointment_changes import reschedule_appointment
from products.calendar.appointment_models import RescheduleBody
from products.pages import links, submissions
from products.pages.appointment_page import act_as_its_contact, link_site, read_appointment
from products.pages.links import Link
from products.pages.offers import OfferedTimes, offered_times
from products.pages.page_routes import PUBLIC, page_router
from products.pages.page_times import span_text, zone, zone_text
from products.pages.render_tokens import Kind
from products.pages.rendering import html, protections
from products.pages.submissions import Returned, carry_out, issue_token, read_render, returned
from products.pages.submitted_fields import read_fields, text_of
from products.pages.workspace_reads import read_in
from spine.kernel import ids
from spine.kernel.errors import SpineError
from spine.kernel.platform import Platform
from spine.kernel.unit_of_work import UnitOfWork

router = page_router()


@router.get("/b/{slug}/{link}/move", openapi_extra=PUBLIC)
async def move_page(slug: str, link: str, request: Request) -> Response:
    platform: Platform = request.app.state.platform
    await submissions.limit_views(request, platform)
    to = links.unseal(platform.vault, Kind.BOOKING, slug, link)
    return await _show(request, slug, link, to, request.query_params.get("after", "")[:100])


@router.post("/b/{slug}/{link}/move", openapi_extra=PUBLIC)
async def submit_move(slug: str, link: str, request: Request) -> Response:
    platform: Platform = request.app.state.platform
    await submissions.limit_submissions(request, platform)
    fields = await read_fields(request)
    to = links.unseal(platform.vault, Kind.BOOKING, slug, link)
    site, slot_id, after = link_site(slug, to), text_of(fields, "slot"), text_of(fields, "after")[:100]

    async def work(unit: UnitOfWork) -> str:
        await act_as_its_contact(unit, to.id)
        await reschedule_appointment(to.id, RescheduleBody(slot_id=slot_id), unit)
        return f"{site.path}/{link}"

    try:
        render = read_render(request, platform, site, fields, subject=f"/{to.id}/move")
        if not ids.is_id(slot_id, ids.PREFIXES["slot"]):
            return await _show(request, slug, link, to, after, Returned(422, {"slot": "Choose a time."}))
        path = await carry_out(request, platform, site, render, {"id": to.id, "slot": slot_id}, work)
    except SpineError as error:
        return await _show(request, slug, link, to, after, returned(error, fields))
    return RedirectResponse(path, 303, {**protections(), "Cache-Control": "no-store"})


async def _show(request: Request, slug: str, link: str, to: Link, after: str, back: Returned | None = None) -> Response:
    platform: Platform = request.app.state.platform
    back = back or Returned(200, {})
    shown, site = await read_appointment(request, slug, to), link_site(slug, to)
    row, in_zone = shown.row, zone("", shown.time_zone)

    async def read(unit: UnitOfWork) -> OfferedTimes:
        return await offered_times(unit, row.service, after, in_zone.key)

    times = await read_in(request, to, read) if row.status == "booked" else OfferedTimes([], "", "")
    return html(
        "move.html",
        shown.look,
        site.framing,
        status=back.status,
        headers=back.headers,
        title="Choose another time",
        private=True,
        test=to.env == "test",
        path=f"{site.path}/{link}",
        token=back.token or issue_token(platform, site, f"/{to.id}/move"),
        errors=back.errors,
        problem=back.problem,
        when=span_text(row.starts_at, row.ends_at, in_zone),
        zone=zone_text(row.starts_at.astimezone(in_zone), in_zone.key),
        days=times.days,
        later=times.later,
        after=after,
    )
