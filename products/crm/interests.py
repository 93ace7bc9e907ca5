"""Interests: which catalog items a lead is interested in. A new one is told as a change of its lead."""

from products.crm.catalog_items import refuse_unknown_items
from products.crm.lead_models import (
    INTEREST,
    LEAD,
    MAX_INTERESTS,
    UPDATED,
    InterestIn,
    InterestOut,
    InterestRow,
    LeadRow,
)
from products.crm.leads import tell_of_update
from products.crm.list_filters import filtered_page
from products.crm.references import Reference
from spine.kernel import store
from spine.kernel.crud import crud_router
from spine.kernel.errors import Conflict, NotFound
from spine.kernel.resource import Metadata
from spine.kernel.routes import CurrentUnit, Paging, declares
from spine.kernel.store import Page
from spine.kernel.timeline import Change


class InterestCreate(InterestIn):
    lead_id: Reference
    metadata: Metadata = {}


router = crud_router(INTEREST, "crm", "get")


@router.post("", status_code=201, openapi_extra=declares("crm:write", UPDATED), summary="Add an interest to a lead")
async def create_interest(body: InterestCreate, unit: CurrentUnit) -> InterestOut:
    try:
        lead: LeadRow = await store.get(unit, LEAD, body.lead_id, lock=True)
    except NotFound as error:
        raise store.reference_not_found("lead_id") from error
    await refuse_unknown_items(unit, [body.catalog_item_id], "catalog_item_id")
    if len(lead.interests) >= MAX_INTERESTS:
        raise Conflict(f"a lead has {MAX_INTERESTS} interests at most", code="interest_limit_reached", param="lead_id")
    before = [one.id for one in lead.interests]
    row: InterestRow = await store.create(unit, INTEREST, **store.columns(body))
    lead.version += 1
    lead.updated_at = await unit.now()
    await store.flush(unit, LeadRow)
    await unit.session.refresh(lead, ["interests"])
    await tell_of_update(unit, lead, [Change(field="interests", old=before, new=[*before, row.id])])
    return InterestOut.model_validate(row)


@router.get("", openapi_extra=declares("crm:read"), summary="List interests, newest first")
async def list_interests(
    unit: CurrentUnit, paging: Paging, lead_id: Reference | None = None, catalog_item_id: Reference | None = None
) -> Page[InterestOut]:
    return await filtered_page(
        unit, INTEREST, paging, (InterestRow.lead_id, lead_id), checked=[(InterestRow.catalog_item_id, catalog_item_id)]
    )
