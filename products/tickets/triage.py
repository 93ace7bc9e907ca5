"""Triage: assign a ticket, move it, or both in one transaction. This is what agents call over MCP (T-12)."""

from products.tickets.assignment import OnlyUnassigned, assign
from products.tickets.queue import shown_one
from products.tickets.sla_cycles import lock_ticket
from products.tickets.ticket_models import (
    ASSIGNED,
    STATUS_CHANGED,
    TICKET,
    Reason,
    Reference,
    TicketOut,
    TicketStatus,
)
from products.tickets.transitions import transition
from spine.kernel.errors import Unprocessable
from spine.kernel.resource import Body
from spine.kernel.routes import CurrentUnit, IfMatch, declares, new_router, version_of

router = new_router(f"/tickets/v1/{TICKET.plural}", TICKET.plural)


class TriageBody(Body):
    owner_id: Reference | None = None
    only_unassigned: OnlyUnassigned = False
    to: TicketStatus | None = None
    reason: Reason | None = None


@router.post(
    "/{id}/triage",
    openapi_extra=declares("tickets:triage", ASSIGNED, STATUS_CHANGED, tool="tickets_triage"),
    summary="Assign a ticket, move it to another status, or both at once",
)
async def triage_ticket(id: str, body: TriageBody, unit: CurrentUnit, if_match: IfMatch = None) -> TicketOut:
    if body.owner_id is None and body.to is None:
        raise Unprocessable("give an owner_id, a status to go `to`, or both", param="owner_id")
    if body.to is not None and body.reason is None:
        raise Unprocessable("a move to another status needs a reason", param="reason")
    row = await lock_ticket(unit, id)
    expected = version_of(if_match)
    if body.owner_id is not None:
        await assign(unit, row, body.owner_id, only_unassigned=body.only_unassigned, expected_version=expected)
        expected = None  # the version has risen
    if body.to is not None and body.reason is not None:
        await transition(unit, row, body.to, body.reason, expected)
    return await shown_one(unit, row)
