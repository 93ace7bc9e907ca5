"""A ticket's way through its statuses: each move is guarded, has a reason and an actor, and is told once (T-03, T-07 to T-09)."""

from typing import Any, Final

from products.tickets.queue import shown_one
from products.tickets.sla_cycles import clock_columns, lock_ticket, new_cycle, schedule_breach
from products.tickets.threads import EntryKind, add_entry
from products.tickets.ticket_history import record
from products.tickets.ticket_models import (
    REOPENED,
    RESOLVED,
    STATUS_CHANGED,
    TICKET,
    Reason,
    TicketOut,
    TicketReopened,
    TicketResolved,
    TicketRow,
    TicketStatus,
    TicketStatusChanged,
)
from spine.kernel import store
from spine.kernel.errors import Conflict, IllegalTransition
from spine.kernel.resource import Body
from spine.kernel.routes import CurrentUnit, IfMatch, declares, new_router, version_of
from spine.kernel.unit_of_work import UnitOfWork
from spine.notifications.notices import Notice, send_notice

MAX_REOPENINGS: Final = 100
"""Each is shown with its time. A ticket that was reopened so often is better written anew."""

RESOLVED_NOTICE: Final = Notice(
    slug="ticket_resolved",
    subject="Resolved: {{ subject }}",
    text='Your request "{{ subject }}" is resolved: {{ resolution_note }}',
    vars=("subject", "resolution_note"),
)

router = new_router(f"/tickets/v1/{TICKET.plural}", TICKET.plural)


class TransitionBody(Body):
    to: TicketStatus
    reason: Reason


class ResolveBody(Body):
    resolution_note: Reason


class ReopenBody(Body):
    reason: Reason


async def _move(
    unit: UnitOfWork, row: TicketRow, to: TicketStatus, reason: str, expected_version: int | None, **values: Any
) -> TicketOut:
    """Move a locked ticket along an allowed transition, with its clock, its job and its event."""
    before = row.status
    values = {"status": to, **clock_columns(row, to, await unit.now()), **values}
    await store.change(unit, TICKET, row, values, expected_version)
    await schedule_breach(unit, row)
    out = await shown_one(unit, row)
    data = {**out.model_dump(), "from": before, "to": to, "actor": unit.caller.actor, "reason": reason}
    detail = {"from": before, "to": to, "reason": reason}
    await record(unit, STATUS_CHANGED, TicketStatusChanged(**data), detail=detail)
    return out


async def transition(
    unit: UnitOfWork, row: TicketRow, to: TicketStatus, reason: str, expected_version: int | None = None
) -> TicketOut:
    """Move a locked ticket to a status that has no action of its own. Raises IllegalTransition, the same status included."""
    if row.status == TicketStatus.RESOLVED:
        raise IllegalTransition("it is resolved; /reopen leads back to open", allowed=[])
    allowed = sorted(TICKET.states[row.status] - {TicketStatus.RESOLVED})
    if to not in allowed:
        hint = "; use /resolve, with a resolution note" if to == TicketStatus.RESOLVED else ""
        raise IllegalTransition(f"it is {row.status}; it can be moved to: {', '.join(allowed)}{hint}", allowed=allowed)
    return await _move(unit, row, to, reason, expected_version)


@router.post(
    "/{id}/transition",
    openapi_extra=declares("tickets:triage", STATUS_CHANGED),
    summary="Move a ticket to another status, with a reason",
)
async def transition_ticket(id: str, body: TransitionBody, unit: CurrentUnit, if_match: IfMatch = None) -> TicketOut:
    row = await lock_ticket(unit, id)
    return await transition(unit, row, body.to, body.reason, version_of(if_match))


@router.post(
    "/{id}/resolve",
    openapi_extra=declares("tickets:write", STATUS_CHANGED, RESOLVED),
    summary="Resolve a ticket with a note, and notify its contact",
)
async def resolve_ticket(id: str, body: ResolveBody, unit: CurrentUnit, if_match: IfMatch = None) -> TicketResolved:
    row = await lock_ticket(unit, id)
    if TicketStatus.RESOLVED not in TICKET.states[row.status]:
        raise IllegalTransition("it is resolved already", allowed=sorted(TICKET.states[row.status]))
    note = body.resolution_note
    out = await _move(
        unit, row, TicketStatus.RESOLVED, note, version_of(if_match), resolution_note=note, resolved_at=await unit.now()
    )
    await add_entry(unit, id, EntryKind.SYSTEM, f"Resolved: {note}")
    sent = await send_notice(
        unit,
        RESOLVED_NOTICE,
        row.contact_id,
        {"subject": row.subject, "resolution_note": note},
        metadata={"ticket_id": id},
    )
    resolved = TicketResolved(**out.model_dump(), message_id=sent.message_id)
    detail = {"message_id": sent.message_id, "refused": sent.refused, "reason": sent.reason}
    await record(unit, RESOLVED, resolved, detail={"resolution_note": note, **detail})
    return resolved


@router.post(
    "/{id}/reopen",
    openapi_extra=declares("tickets:write", STATUS_CHANGED, REOPENED),
    summary="Reopen a resolved ticket, with a reason",
)
async def reopen_ticket(id: str, body: ReopenBody, unit: CurrentUnit, if_match: IfMatch = None) -> TicketOut:
    row = await lock_ticket(unit, id)
    if row.status != TicketStatus.RESOLVED:
        raise IllegalTransition(
            f"it is {row.status}; only resolved tickets are reopened", allowed=sorted(TICKET.states[row.status])
        )
    if row.reopen_count >= MAX_REOPENINGS:
        raise Conflict(
            f"a ticket is reopened {MAX_REOPENINGS} times at most; create another", code="too_many_reopenings"
        )
    now = await unit.now()
    out = await _move(
        unit, row, TicketStatus.OPEN, body.reason, version_of(if_match),
        reopen_count=row.reopen_count + 1, reopened_at=[*row.reopened_at, now], resolution_note=None, resolved_at=None,
        **await new_cycle(unit, row.priority, row.topic, now),
    )  # fmt: skip
    await add_entry(unit, id, EntryKind.SYSTEM, f"Reopened: {body.reason}")
    reopened = TicketReopened(**out.model_dump(), reason=body.reason)
    await record(unit, REOPENED, reopened, detail={"reason": body.reason, "reopen_count": row.reopen_count})
    return out
