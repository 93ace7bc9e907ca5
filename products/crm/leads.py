"""Leads: what comes in through any door, matched to a contact, and found again by contact, stage, owner, phone or email."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm.attributes import set_committed_value

from policies.lead_stages import Stage
from products.crm.catalog_items import refuse_unknown_items
from products.crm.history import changes_between, tell
from products.crm.lead_models import (
    CREATED,
    INTEREST,
    LEAD,
    UPDATED,
    InterestIn,
    InterestRow,
    LeadCreate,
    LeadOut,
    LeadRow,
    LeadUpdate,
    LeadUpdated,
)
from products.crm.list_filters import filtered_page
from products.crm.references import Reference, known_contact, refuse_unknown_owner
from spine.directory import contacts
from spine.directory.addresses import Email, Phone
from spine.directory.contacts import ContactRow
from spine.kernel import ids, store, timeline
from spine.kernel.crud import crud_router
from spine.kernel.routes import CurrentUnit, IfMatch, Paging, declares, version_of
from spine.kernel.store import Page
from spine.kernel.timeline import Change, TimelineEntry
from spine.kernel.unit_of_work import UnitOfWork

router = crud_router(LEAD, "crm", "get")


async def add_lead(unit: UnitOfWork, contact_id: str, interests: Sequence[InterestIn], **values: Any) -> LeadOut:
    """Write a lead in its first stage, with its interests, event and timeline entries (C-01, C-02, C-09).

    Raises Unprocessable `reference_not_found`.
    """
    await refuse_unknown_owner(unit, values.get("owner_id"))
    await refuse_unknown_items(unit, [one.catalog_item_id for one in interests], "interests.{}.catalog_item_id")
    row = await store.create(unit, LEAD, contact_id=contact_id, stage="new", **values)
    set_committed_value(row, "interests", await _add_interests(unit, row, interests))
    out: LeadOut = await store.emit_event(unit, LEAD, row, "created")
    detail = {"lead_id": row.id, "source": row.source, "door": row.door}
    await tell(unit, "lead.created", row.id, row.contact_id, detail=detail)
    return out


async def _add_interests(unit: UnitOfWork, lead: LeadRow, interests: Sequence[InterestIn]) -> list[InterestRow]:
    rows = []
    for one in interests:
        id = ids.mint(INTEREST.prefix)
        at = ids.created_at(id)
        rows.append(
            InterestRow(
                workspace_id=unit.workspace_id,
                id=id,
                created_at=at,
                updated_at=at,
                lead_id=lead.id,
                **one.model_dump(),
            )
        )
    unit.session.add_all(rows)
    await store.flush(unit, InterestRow)
    return rows


async def tell_of_update(unit: UnitOfWork, row: LeadRow, changes: list[Change]) -> LeadOut:
    """Emit `lead.updated` with these changes, and append them to the timelines of the lead and its contact."""
    out = LeadOut.model_validate(row)
    unit.emit(UPDATED, LeadUpdated(**out.model_dump(), changes=changes), sequence=row.version)
    await tell(unit, "lead.updated", row.id, row.contact_id, changes=changes, detail={"lead_id": row.id})
    return out


@router.post(
    "",
    status_code=201,
    openapi_extra=declares("crm:write", CREATED, contacts.CREATED, tool="crm_create_lead"),
    summary="Create a lead, and its contact where there is none yet",
)
async def create_lead(body: LeadCreate, unit: CurrentUnit) -> LeadOut:
    if body.contact is not None:
        contact, _ = await contacts.match(
            unit, name=body.contact.name, phone=body.contact.phone, email=body.contact.email
        )
    else:
        contact = await known_contact(unit, body.contact_id or "")
    return await add_lead(
        unit,
        contact.id,
        body.interests,
        source=body.source,
        door=body.door,
        owner_id=body.owner_id,
        meta=body.metadata,
    )


@router.get("", openapi_extra=declares("crm:read", tool="crm_search_leads"), summary="List leads, newest first")
async def list_leads(
    unit: CurrentUnit,
    paging: Paging,
    contact_id: Reference | None = None,
    stage: Stage | None = None,
    owner_id: Reference | None = None,
    phone: Phone | None = None,
    email: Email | None = None,
) -> Page[LeadOut]:
    if phone is not None or email is not None:
        found = await _contact_with(unit, phone, email)
        if found is None or contact_id not in (None, found):
            return Page(data=[], has_more=False, next_cursor=None)
        contact_id = found
    return await filtered_page(
        unit, LEAD, paging, (LeadRow.contact_id, contact_id), (LeadRow.owner_id, owner_id), (LeadRow.stage, stage)
    )


async def _contact_with(unit: UnitOfWork, phone: str | None, email: str | None) -> str | None:
    """Return the id of the contact that has this phone and this e-mail address, where given."""
    query = select(ContactRow.id).where(ContactRow.workspace_id == unit.workspace_id)
    for column, value in ((ContactRow.phone_e164, phone), (ContactRow.email, email)):
        if value is not None:
            query = query.where(column == value)
    found: str | None = await unit.session.scalar(query)
    return found


@router.patch(
    "/{id}", openapi_extra=declares("crm:write", UPDATED), summary="Change a lead; its stage has actions of its own"
)
async def update_lead(id: str, body: LeadUpdate, unit: CurrentUnit, if_match: IfMatch = None) -> LeadOut:
    row: LeadRow = await store.get(unit, LEAD, id, lock=True)
    values = store.columns(body)
    await refuse_unknown_owner(unit, values.get("owner_id"))
    before = LeadOut.model_validate(row).model_dump(mode="json")
    if not await store.change(unit, LEAD, row, values, version_of(if_match)):
        return LeadOut.model_validate(row)
    after = LeadOut.model_validate(row).model_dump(mode="json")
    return await tell_of_update(unit, row, changes_between(before, after, ("source", "owner_id", "metadata")))


@router.get("/{id}/timeline", openapi_extra=declares("crm:read"), summary="A lead's timeline, oldest first")
async def get_lead_timeline(id: str, unit: CurrentUnit, paging: Paging) -> Page[TimelineEntry]:
    await store.get(unit, LEAD, id)
    return await timeline.page(unit, id, paging)
