"""Tickets: create them from any door, read, list and change them (T-04, T-05). Their actions are in rooms of their own."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import select

from products.tickets.assignment import record_assignment
from products.tickets.default_route import default_route_required
from products.tickets.evidence import add_evidence
from products.tickets.evidence_models import EvidenceCreate
from products.tickets.queue import shown, shown_one
from products.tickets.routing_rules import choose_owner
from products.tickets.sla_cycles import lock_ticket, new_cycle, schedule_breach
from products.tickets.sla_policies import find_threshold_s
from products.tickets.threads import EntryKind, add_entry
from products.tickets.ticket_history import record
from products.tickets.ticket_models import (
    ASSIGNED,
    CREATED,
    TICKET,
    UPDATED,
    Priority,
    Reference,
    Source,
    TicketCreate,
    TicketCreated,
    TicketOut,
    TicketRow,
    TicketStatus,
    TicketUpdate,
    TicketUpdated,
    Topic,
)
from spine.kernel import store, timeline
from spine.kernel.routes import CurrentUnit, IfMatch, Paging, declares, new_router, version_of
from spine.kernel.store import Page
from spine.kernel.timeline import Change, TimelineEntry
from spine.kernel.unit_of_work import UnitOfWork

router = new_router(f"/tickets/v1/{TICKET.plural}", TICKET.plural, TICKET)

_TRACKED_FIELDS: Final = ("subject", "topic", "priority", "metadata")


async def create_ticket(
    unit: UnitOfWork,
    *,
    contact_id: str,
    subject: str,
    topic: str | None = None,
    priority: str = Priority.NORMAL,
    source: str,
    call_id: str | None = None,
    evidence: Sequence[EvidenceCreate] = (),
    body: str | None = None,
    owner_id: str | None = None,
    form_id: str | None = None,
    metadata: dict[str, str] | None = None,
) -> TicketCreated:
    """Create a ticket with its evidence, its first thread entry, its owner and its SLA clock, in the unit's transaction.

    Without `owner_id` the routing rules choose the owner; without a rule the ticket waits in the queue. Raises Unprocessable
    `reference_not_found`, and Conflict `default_route_required` for a form whose ticket would have no owner (T-14).
    """
    owner_id = owner_id or await choose_owner(unit, topic)
    if form_id is not None and owner_id is None:
        raise default_route_required()
    now = await unit.now()
    row = await store.create(
        unit, TICKET, contact_id=contact_id, subject=subject, topic=topic, priority=priority, source=source,
        call_id=call_id, owner_id=owner_id, form_id=form_id, meta=metadata or {},
        **await new_cycle(unit, priority, topic, now),
    )  # fmt: skip
    linked = [await add_evidence(unit, row.id, one, f"evidence.{n}.ref") for n, one in enumerate(evidence)]
    if body is not None:
        await add_entry(unit, row.id, EntryKind.COMMENT, body)
    await schedule_breach(unit, row)
    out = TicketCreated(**(await shown_one(unit, row)).model_dump(), body=body, evidence=linked)
    await record(unit, CREATED, out, detail={"source": source})
    if owner_id is not None:
        await record_assignment(unit, row, None)
    return out


async def open_tickets(unit: UnitOfWork, contact_id: str, limit: int) -> list[TicketOut]:
    """Return the newest tickets of a contact that are not resolved, at most `limit`."""
    query = select(TicketRow).where(
        TicketRow.workspace_id == unit.workspace_id,
        TicketRow.contact_id == contact_id,
        TicketRow.status != TicketStatus.RESOLVED,
    )
    rows = (await unit.session.scalars(query.order_by(TicketRow.id.desc()).limit(limit))).all()
    return await shown(unit, rows)


@router.post(
    "",
    status_code=201,
    openapi_extra=declares("tickets:write", CREATED, ASSIGNED),
    summary="Create a ticket",
    name="create_ticket",
)
async def post_ticket(body: TicketCreate, unit: CurrentUnit) -> TicketCreated:
    fields = {name: getattr(body, name) for name in TicketCreate.model_fields}
    return await create_ticket(unit, **fields)


@router.get("", openapi_extra=declares("tickets:read"), summary="List tickets, newest first")
async def list_tickets(
    unit: CurrentUnit,
    paging: Paging,
    contact_id: Reference | None = None,
    owner_id: Reference | None = None,
    call_id: Reference | None = None,
    status: TicketStatus | None = None,
    priority: Priority | None = None,
    topic: Topic | None = None,
    source: Source | None = None,
) -> Page[TicketOut]:
    by_index = [(TicketRow.contact_id, contact_id), (TicketRow.owner_id, owner_id), (TicketRow.call_id, call_id)]
    others = [
        (TicketRow.status, status), (TicketRow.priority, priority), (TicketRow.topic, topic), (TicketRow.source, source)
    ]  # fmt: skip
    conditions = [column == value for column, value in by_index if value is not None]
    checked = [column == value for column, value in others if value is not None]
    filters = repr([value for _, value in (*by_index, *others)])
    page = await store.page(
        unit, TICKET, paging.cursor, paging.limit, *conditions[:1], checked=[*conditions[1:], *checked], filters=filters,
        out=lambda row: row,
    )  # fmt: skip
    return Page[TicketOut](data=await shown(unit, page.data), has_more=page.has_more, next_cursor=page.next_cursor)


@router.get("/{id}", openapi_extra=declares("tickets:read"), summary="Read a ticket")
async def get_ticket(id: str, unit: CurrentUnit) -> TicketOut:
    return await shown_one(unit, await store.get(unit, TICKET, id))


@router.patch("/{id}", openapi_extra=declares("tickets:write", UPDATED, ASSIGNED), summary="Change a ticket")
async def update_ticket(id: str, body: TicketUpdate, unit: CurrentUnit, if_match: IfMatch = None) -> TicketOut:
    row = await lock_ticket(unit, id)
    before, previous_owner_id = TicketOut.model_validate(row).model_dump(mode="json"), row.owner_id
    values = store.columns(body)
    if {"priority", "topic"} & values.keys():
        priority, topic = values.get("priority", row.priority), values.get("topic", row.topic)
        if (priority, topic) != (row.priority, row.topic):
            values["sla_threshold_s"] = await find_threshold_s(unit, priority, topic)
    changed = await store.change(unit, TICKET, row, values, version_of(if_match))
    out = await shown_one(unit, row)
    if changed:
        await schedule_breach(unit, row)
        await _record_changes(unit, row, out, before, previous_owner_id)
    return out


async def _record_changes(
    unit: UnitOfWork, row: TicketRow, out: TicketOut, before: dict[str, Any], previous_owner_id: str | None
) -> None:
    """Record a new owner as `ticket.assigned`, and everything else that changed as `ticket.updated`: both for both (T-07)."""
    assigned = row.owner_id is not None and row.owner_id != previous_owner_id
    after = out.model_dump(mode="json")
    changes = [
        Change(field=name, old=before[name], new=after[name])
        for name in (_TRACKED_FIELDS if assigned else (*_TRACKED_FIELDS, "owner_id"))
        if store.differs(before[name], after[name])
    ]
    if assigned:
        await record_assignment(unit, row, previous_owner_id)
    if changes:
        await record(unit, UPDATED, TicketUpdated(**out.model_dump(), changes=changes), changes=changes)


@router.get("/{id}/timeline", openapi_extra=declares("tickets:read"), summary="A ticket's timeline, oldest first")
async def get_ticket_timeline(id: str, unit: CurrentUnit, paging: Paging) -> Page[TimelineEntry]:
    await store.get(unit, TICKET, id)
    return await timeline.page(unit, id, paging)
