"""Assigning tickets: one owner each. Of any number of concurrent claims one wins (T-06)."""

from typing import Annotated

from pydantic import Field

from products.tickets.sla_cycles import lock_ticket
from products.tickets.ticket_history import record
from products.tickets.ticket_models import ASSIGNED, TICKET, Reference, TicketAssigned, TicketOut, TicketRow
from spine.kernel import store
from spine.kernel.errors import Conflict
from spine.kernel.resource import Body
from spine.kernel.routes import CurrentUnit, IfMatch, declares, new_router, version_of
from spine.kernel.unit_of_work import UnitOfWork

router = new_router(f"/tickets/v1/{TICKET.plural}", TICKET.plural)

OnlyUnassigned = Annotated[
    bool,
    Field(
        description="Claim: refuse with 409 `already_assigned` if the ticket has an owner, instead of replacing them."
    ),
]


class AssignBody(Body):
    owner_id: Reference
    only_unassigned: OnlyUnassigned = False


async def assign(
    unit: UnitOfWork,
    row: TicketRow,
    owner_id: str,
    *,
    only_unassigned: bool = False,
    expected_version: int | None = None,
) -> None:
    """Give a locked ticket an owner, who may replace another one.

    Raises Conflict `already_assigned` if the owner has it already, or anybody with `only_unassigned`; Unprocessable for an
    unknown owner.
    """
    if row.owner_id is not None and (only_unassigned or row.owner_id == owner_id):
        raise Conflict(
            "the ticket has this owner already" if row.owner_id == owner_id else "the ticket has an owner already",
            code="already_assigned",
            param="owner_id",
            existing_id=row.owner_id,
        )
    previous = row.owner_id
    await store.change(unit, TICKET, row, {"owner_id": owner_id}, expected_version)
    await record_assignment(unit, row, previous)


async def record_assignment(unit: UnitOfWork, row: TicketRow, previous_owner_id: str | None) -> None:
    """Record that a ticket has an owner, or another one."""
    out = TicketAssigned(**TicketOut.model_validate(row).model_dump(), previous_owner_id=previous_owner_id)
    detail = {"owner_id": row.owner_id, "previous_owner_id": previous_owner_id}
    await record(unit, ASSIGNED, out, detail=detail)


@router.post("/{id}/assign", openapi_extra=declares("tickets:triage", ASSIGNED), summary="Give a ticket an owner")
async def assign_ticket(id: str, body: AssignBody, unit: CurrentUnit, if_match: IfMatch = None) -> TicketOut:
    row = await lock_ticket(unit, id)
    await assign(
        unit,
        row,
        body.owner_id,
        only_unassigned=body.only_unassigned,
        expected_version=version_of(if_match),
    )
    return TicketOut.model_validate(row)
