"""`/f/{slug}/{link}`: the page behind the link of a submitted ticket: its owner and its state, as they are now (T-14).

Whoever has the link reads this page, so it shows what the visitor wrote and who handles it, and nothing that staff wrote.
"""

from typing import Any, Final

from fastapi import Request, Response
from sqlalchemy import select

from products.pages import links, submissions
from products.pages.framing import NOWHERE, Framing, cors_headers
from products.pages.page_routes import PUBLIC, page_router
from products.pages.page_times import clock_text, day_text
from products.pages.render_tokens import Kind
from products.pages.rendering import PLAIN, Look, html
from products.pages.workspace_reads import read_in
from products.tickets.form_models import FormRow
from products.tickets.ticket_models import TICKET, TicketRow, TicketStatus
from spine.directory.users import UserRow
from spine.kernel import store
from spine.kernel.platform import Platform
from spine.kernel.unit_of_work import UnitOfWork

_STATES: Final = {
    TicketStatus.NEW: "New",
    TicketStatus.OPEN: "In progress",
    TicketStatus.PENDING: "Waiting",
    TicketStatus.RESOLVED: "Resolved",
}

router = page_router()


@router.get("/f/{slug}/{link}", openapi_extra=PUBLIC)
async def ticket_page(slug: str, link: str, request: Request) -> Response:
    platform: Platform = request.app.state.platform
    await submissions.limit_views(request, platform)
    to = links.unseal(platform.vault, Kind.FORM, slug, link)

    async def read(unit: UnitOfWork) -> tuple[TicketRow, str | None, Any]:
        ticket = await store.get(unit, TICKET, to.id)
        owner = await unit.session.scalar(
            select(UserRow.name).where(UserRow.workspace_id == to.workspace_id, UserRow.id == ticket.owner_id)
        )
        form = await unit.session.scalar(
            select(FormRow).where(FormRow.workspace_id == to.workspace_id, FormRow.slug == slug)
        )
        return ticket, owner, form

    ticket, owner, form = await read_in(request, to, read)
    framing = Framing(tuple(origin.lower() for origin in form.allowed_origins)) if form else NOWHERE
    sent_at = ticket.created_at
    return html(
        "ticket.html",
        Look.of(form.brand) if form else PLAIN,
        framing,
        headers=cors_headers(request, framing),
        title="Your request",
        private=True,
        test=to.env == "test",
        subject=ticket.subject,
        topic=ticket.topic,
        state_name=ticket.status,
        state=_STATES[TicketStatus(ticket.status)],
        owner=owner,
        reference=ticket.id,
        sent_at=sent_at,
        sent_text=f"{day_text(sent_at.date())}, {clock_text(sent_at)} UTC",
    )
