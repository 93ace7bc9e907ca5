"""Evidence of tickets: recordings, transcripts and files, linked by reference. It is only appended (T-02)."""

from typing import Final

from sqlalchemy import func, select

from products.tickets.evidence_models import EvidenceCreate, EvidenceOut, EvidenceRow, evidence_columns
from products.tickets.ticket_models import TICKET
from spine.kernel import store, timeline
from spine.kernel.errors import Conflict, Unprocessable
from spine.kernel.events import EventType
from spine.kernel.resource import Resource
from spine.kernel.routes import CurrentUnit, Paging, declares, new_router
from spine.kernel.store import Page
from spine.kernel.unit_of_work import UnitOfWork

MAX_PER_TICKET: Final = 200

ADDED = EventType("ticket.evidence_added", EvidenceOut, "Evidence was linked to a ticket that was there already.")
EVIDENCE = Resource(
    noun="evidence",
    row=EvidenceRow,
    create=EvidenceCreate,
    update=None,
    out=EvidenceOut,
    scope="tickets",
    events=(ADDED,),
)

router = new_router(f"/tickets/v1/{TICKET.plural}", EVIDENCE.noun, EVIDENCE)


async def add_evidence(unit: UnitOfWork, ticket_id: str, body: EvidenceCreate, param: str = "ref") -> EvidenceOut:
    """Link a piece of evidence to a ticket. Raises Unprocessable for a call that is not of this workspace, naming `param`."""
    try:
        row = await store.create(unit, EVIDENCE, **evidence_columns(ticket_id, body))
    except Unprocessable as error:
        raise store.reference_not_found(param) from error
    return EvidenceOut.model_validate(row)


@router.post(
    "/{id}/evidence",
    status_code=201,
    openapi_extra=declares("tickets:write", ADDED),
    summary="Link evidence to a ticket",
)
async def create_evidence(id: str, body: EvidenceCreate, unit: CurrentUnit) -> EvidenceOut:
    await store.get(unit, TICKET, id, lock=True)  # so that the count holds
    count = select(func.count()).where(EvidenceRow.workspace_id == unit.workspace_id, EvidenceRow.ticket_id == id)
    if (await unit.session.scalar(count) or 0) >= MAX_PER_TICKET:
        raise Conflict(f"a ticket has {MAX_PER_TICKET} pieces of evidence at most", code="too_much_evidence")
    added = await add_evidence(unit, id, body)
    unit.emit(ADDED, added, sequence=added.version)
    await timeline.append(unit, id, ADDED.name, detail={"evidence_id": added.id, "kind": added.kind})
    return added


@router.get("/{id}/evidence", openapi_extra=declares("tickets:read"), summary="List a ticket's evidence, newest first")
async def list_evidence(id: str, unit: CurrentUnit, paging: Paging) -> Page[EvidenceOut]:
    await store.get(unit, TICKET, id)
    return await store.page(unit, EVIDENCE, paging.cursor, paging.limit, EvidenceRow.ticket_id == id)


@router.get("/{id}/evidence/{evidence_id}", openapi_extra=declares("tickets:read"), summary="Read a piece of evidence")
async def get_evidence(id: str, evidence_id: str, unit: CurrentUnit) -> EvidenceOut:
    row = await store.get(unit, EVIDENCE, evidence_id)
    if row.ticket_id != id:
        raise store.not_found(EVIDENCE)
    return EvidenceOut.model_validate(row)
