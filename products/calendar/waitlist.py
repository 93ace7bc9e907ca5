"""The waitlist: join, claim an offer, withdraw. A claim is the same conditional write as any other booking (K-08)."""

from typing import Annotated

from fastapi import Query
from pydantic import Field

from products.calendar import appointment_models
from products.calendar.appointment_models import BookedVia
from products.calendar.booking import book
from products.calendar.waitlist_models import (
    BOOKED,
    JOINED,
    WAITLIST_ENTRY,
    WITHDRAWN,
    Status,
    WaitlistEntryCreate,
    WaitlistEntryOut,
    WaitlistEntryRow,
)
from products.calendar.waitlist_offers import EXPIRE, offer_on
from spine.kernel import ids, jobs, store
from spine.kernel.crud import crud_router
from spine.kernel.errors import IllegalTransition, Unprocessable
from spine.kernel.resource import Body
from spine.kernel.routes import CurrentUnit, Paging, declares
from spine.kernel.store import Page
from spine.kernel.unit_of_work import UnitOfWork

router = crud_router(WAITLIST_ENTRY, "calendar", "get")


class ClaimBody(Body):
    booked_via: BookedVia = Field(default="api", description="Through which door the offer is claimed.")


@router.post("", status_code=201, openapi_extra=declares("calendar:write", JOINED), summary="Join the waitlist")
async def create_waitlist_entry(body: WaitlistEntryCreate, unit: CurrentUnit) -> WaitlistEntryOut:
    if body.window.to <= unit.platform.clock.now():
        raise Unprocessable("this time is past; wait for one to come", code="invalid_times", param="window.to")
    for param, kind in (("contact_id", "contact"), ("resource_id", "resource")):
        id = getattr(body, param)
        if id is not None and not ids.is_id(id, ids.PREFIXES[kind]):
            raise store.reference_not_found(param)
    row = await store.create(
        unit, WAITLIST_ENTRY,
        service=body.service, resource_id=body.resource_id, contact_id=body.contact_id, meta=body.metadata,
        window_from=body.window.from_, window_to=body.window.to,
    )  # fmt: skip
    out = WaitlistEntryOut.model_validate(row)
    unit.emit(JOINED, out, sequence=row.version)
    return out


@router.get("", openapi_extra=declares("calendar:read"), summary="List waitlist entries, newest first")
async def list_waitlist_entries(
    unit: CurrentUnit,
    paging: Paging,
    contact_id: Annotated[str | None, Query(max_length=64)] = None,
    status: Status | None = None,
    service: Annotated[str | None, Query(max_length=64)] = None,
    resource_id: Annotated[str | None, Query(max_length=64)] = None,
) -> Page[WaitlistEntryOut]:
    indexed = [] if contact_id is None else [WaitlistEntryRow.contact_id == contact_id]
    checked = [
        getattr(WaitlistEntryRow, name) == value
        for name, value in (("status", status), ("service", service), ("resource_id", resource_id))
        if value is not None
    ]
    filters = f"{contact_id} {status} {service} {resource_id}"
    return await store.page(
        unit, WAITLIST_ENTRY, paging.cursor, paging.limit, *indexed, checked=checked, filters=filters
    )


@router.post(
    "/{id}/claim",
    openapi_extra=declares("calendar:write", BOOKED, appointment_models.CREATED, appointment_models.BOOKED),
    summary="Book the slot that is offered to a waiting contact",
)
async def claim_waitlist_entry(id: str, unit: CurrentUnit, body: ClaimBody | None = None) -> WaitlistEntryOut:
    row = await _lock(unit, id)
    slot_id = await _offered_slot(unit, row)
    made = await book(
        unit,
        slot_id=slot_id,
        contact_id=row.contact_id,
        service=row.service,
        booked_via=(body or ClaimBody()).booked_via,
    )
    await store.change(
        unit, WAITLIST_ENTRY, row, {"status": "booked", "appointment_id": made.id, "offer_expires_at": None}
    )
    out = WaitlistEntryOut.model_validate(row)
    unit.emit(BOOKED, out, sequence=row.version)
    return out


async def _lock(unit: UnitOfWork, id: str) -> WaitlistEntryRow:
    """Lock an entry, without the job of its expiry, which locks in this order too. Raises NotFound."""
    if not ids.is_id(id, WAITLIST_ENTRY.prefix):
        raise store.not_found(WAITLIST_ENTRY)
    await jobs.cancel(unit, EXPIRE, id)
    row: WaitlistEntryRow = await store.get(unit, WAITLIST_ENTRY, id, lock=True)
    return row


async def _offered_slot(unit: UnitOfWork, row: WaitlistEntryRow) -> str:
    """Return the slot that is on offer to an entry. Raises IllegalTransition, also after the offer has expired."""
    if row.status != "offered" or row.slot_id is None or row.offer_expires_at is None:
        allowed = ["withdrawn"] if row.status == "waiting" else []
        raise IllegalTransition(f"it is {row.status}, and has no offer", allowed=allowed)
    if row.offer_expires_at <= await unit.now():
        raise IllegalTransition("its offer has expired", allowed=["withdrawn"])
    return row.slot_id


@router.post("/{id}/withdraw", openapi_extra=declares("calendar:write", WITHDRAWN), summary="Leave the waitlist")
async def withdraw_waitlist_entry(id: str, unit: CurrentUnit) -> WaitlistEntryOut:
    row = await _lock(unit, id)
    if "withdrawn" not in WAITLIST_ENTRY.states[row.status]:
        raise IllegalTransition(f"it is {row.status}; that is final", allowed=[])
    offered_slot_id = row.slot_id
    await store.change(unit, WAITLIST_ENTRY, row, {"status": "withdrawn", "slot_id": None, "offer_expires_at": None})
    if offered_slot_id is not None:
        await offer_on(unit, offered_slot_id, row.queue_number)
    out = WaitlistEntryOut.model_validate(row)
    unit.emit(WITHDRAWN, out, sequence=row.version)
    return out
