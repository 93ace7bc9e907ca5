"""The routes of deals: what may be changed while open, and the two ends."""

from products.crm.deals import (
    CREATED,
    DEAL,
    LOST,
    UPDATED,
    WON,
    DealCreate,
    DealOut,
    DealRow,
    DealStatus,
    DealUpdate,
    LoseBody,
    Stage,
    WinBody,
    open_deal,
    tell_of_deal,
    update_terms,
)
from products.crm.lead_models import LEAD, LeadRow
from products.crm.list_filters import filtered_page
from products.crm.references import Reference
from spine.kernel import store, timeline
from spine.kernel.crud import crud_router
from spine.kernel.errors import IllegalTransition, NotFound, Unprocessable
from spine.kernel.routes import CurrentUnit, IfMatch, Paging, declares, version_of
from spine.kernel.store import Page
from spine.kernel.timeline import TimelineEntry
from spine.kernel.unit_of_work import UnitOfWork

router = crud_router(DEAL, "crm", "get")


@router.post("", status_code=201, openapi_extra=declares("crm:write", CREATED), summary="Open a deal")
async def create_deal(body: DealCreate, unit: CurrentUnit) -> DealOut:
    lead = await _lead(unit, body.lead_id)
    contact_id = body.contact_id or (lead.contact_id if lead else "")
    if lead is not None and contact_id != lead.contact_id:
        raise Unprocessable("this lead is of another contact", code="contact_mismatch", param="contact_id")
    return await open_deal(
        unit, body, contact_id=contact_id, lead_id=body.lead_id, owner_id=lead.owner_id if lead else None
    )


async def _lead(unit: UnitOfWork, id: str | None) -> LeadRow | None:
    if id is None:
        return None
    try:
        row: LeadRow = await store.get(unit, LEAD, id)
    except NotFound as error:
        raise store.reference_not_found("lead_id") from error
    return row


@router.get("", openapi_extra=declares("crm:read"), summary="List deals, newest first")
async def list_deals(
    unit: CurrentUnit,
    paging: Paging,
    contact_id: Reference | None = None,
    lead_id: Reference | None = None,
    owner_id: Reference | None = None,
    status: DealStatus | None = None,
    stage: Stage | None = None,
) -> Page[DealOut]:
    return await filtered_page(
        unit,
        DEAL,
        paging,
        (DealRow.lead_id, lead_id),
        (DealRow.contact_id, contact_id),
        (DealRow.owner_id, owner_id),
        (DealRow.status, status),
        checked=[(DealRow.stage, stage)],
    )


@router.patch("/{id}", openapi_extra=declares("crm:write", UPDATED), summary="Change an open deal")
async def update_deal(id: str, body: DealUpdate, unit: CurrentUnit, if_match: IfMatch = None) -> DealOut:
    row: DealRow = await store.get(unit, DEAL, id, lock=True)
    if row.status != "open" and body.model_fields_set - {"metadata"}:
        raise IllegalTransition(f"the deal is {row.status}; only its metadata can be changed", allowed=[])
    return await update_terms(unit, row, body, version_of(if_match))


@router.post(
    "/{id}/win", openapi_extra=declares("crm:write", WON, tool="crm_win_deal"), summary="Win a deal; this is final"
)
async def win_deal(id: str, unit: CurrentUnit, body: WinBody | None = None) -> DealOut:  # noqa: ARG001  # an empty object
    return await _close(unit, id, "won", None)


@router.post("/{id}/lose", openapi_extra=declares("crm:write", LOST), summary="Lose a deal; this is final")
async def lose_deal(id: str, body: LoseBody, unit: CurrentUnit) -> DealOut:
    return await _close(unit, id, "lost", body.lost_reason)


async def _close(unit: UnitOfWork, id: str, status: str, lost_reason: str | None) -> DealOut:
    row = await store.transition(unit, DEAL, id, status, lost_reason=lost_reason, closed_at=await unit.now())
    out: DealOut = await store.emit_event(unit, DEAL, row, status)
    await tell_of_deal(unit, f"deal.{status}", row)
    return out


@router.get("/{id}/timeline", openapi_extra=declares("crm:read"), summary="A deal's timeline, oldest first")
async def get_deal_timeline(id: str, unit: CurrentUnit, paging: Paging) -> Page[TimelineEntry]:
    await store.get(unit, DEAL, id)
    return await timeline.page(unit, id, paging)
