"""Slots: created in bulk, read as availability, given more room, closed."""

from datetime import timedelta
from typing import Annotated, Final

from fastapi import Query
from pydantic import BaseModel
from sqlalchemy import select

from products.calendar.availability import SlotFilter, available_page
from products.calendar.resources import CalendarResourceRow
from products.calendar.services import ServiceRow, find_services
from products.calendar.slot_models import (
    CLOSED,
    CREATED,
    MAX_LENGTH,
    RELEASED,
    SLOT,
    UPDATED,
    SlotCreate,
    SlotOut,
    SlotRow,
    SlotsCreate,
    SlotUpdate,
)
from products.calendar.slot_room import emit_released
from spine.kernel import ids, store
from spine.kernel.crud import crud_router
from spine.kernel.errors import Conflict, FieldError, IllegalTransition, Unprocessable
from spine.kernel.resource import Timestamp
from spine.kernel.routes import CurrentUnit, IfMatch, Paging, declares, version_of
from spine.kernel.store import Page
from spine.kernel.unit_of_work import UnitOfWork

_AHEAD: Final = timedelta(days=10 * 366)
router = crud_router(SLOT, "calendar", "get")


class SlotsOut(BaseModel):
    """The slots of a request, in its order."""

    data: list[SlotOut]


@router.post(
    "",
    status_code=201,
    openapi_extra=declares("calendar:write", CREATED),
    summary="Create up to 500 slots, all or none",
)
async def create_slots(body: SlotsCreate, unit: CurrentUnit) -> SlotsOut:
    await _refuse_faults(unit, body.slots)
    rows: list[SlotRow] = []
    for slot in body.slots:
        id = ids.mint(SLOT.prefix)
        now = ids.created_at(id)
        values = store.columns(slot)
        rows.append(
            SlotRow(
                workspace_id=unit.workspace_id,
                id=id,
                created_at=now,
                updated_at=now,
                **{"capacity": 1, "meta": {}, **values},
                bookable_until=slot.starts_at,
            )
        )
    unit.session.add_all(rows)
    await store.flush(unit, SlotRow)
    return SlotsOut(data=[await store.emit_event(unit, SLOT, row, "created") for row in rows])


async def _refuse_faults(unit: UnitOfWork, slots: list[SlotCreate]) -> None:
    """Raise Unprocessable with every fault of the slots, each named by its place in the request."""
    named = {slot.resource_id for slot in slots}
    query = select(CalendarResourceRow.id).where(
        CalendarResourceRow.workspace_id == unit.workspace_id, CalendarResourceRow.id.in_(named)
    )
    known = set(await unit.session.scalars(query))
    services = await find_services(unit, {slot.service for slot in slots if slot.service is not None})
    latest = unit.platform.clock.now() + _AHEAD
    errors = []
    for n, slot in enumerate(slots):
        for field, code, detail in _faults(slot, known, services):
            errors.append(FieldError(param=f"slots.{n}.{field}", code=code, detail=detail))
        if slot.ends_at > latest:
            errors.append(
                FieldError(param=f"slots.{n}.ends_at", code="too_far_ahead", detail="it lies more than 10 years ahead")
            )
    if errors:
        first = errors[0]
        raise Unprocessable(
            f"{first.param}: {first.detail}; nothing was created",
            code=first.code,
            param=first.param,
            errors=errors[:100],
        )


def _faults(slot: SlotCreate, known: set[str], services: dict[str, ServiceRow]) -> list[tuple[str, str, str]]:
    """Return what is wrong with one slot: field, code and detail."""
    found = []
    length = slot.ends_at - slot.starts_at
    if length <= timedelta(0):
        found.append(("ends_at", "invalid_times", "it must lie after starts_at"))
    if length > MAX_LENGTH:
        found.append(("ends_at", "slot_too_long", f"a slot has {MAX_LENGTH.days} days at most"))
    if slot.resource_id not in known:
        found.append(("resource_id", "reference_not_found", "resource_id names nothing in this workspace"))
    if slot.service is not None:
        service = services.get(slot.service)
        if service is None:
            found.append(("service", "reference_not_found", "service names nothing in this workspace"))
        elif timedelta(0) < length < timedelta(minutes=service.duration_min):
            found.append(("ends_at", "slot_too_short", f"{service.slug} takes {service.duration_min} minutes"))
    return found


@router.get(
    "",
    openapi_extra=declares("calendar:read", tool="calendar_availability"),
    summary="Availability: slots that can be booked, the earliest first",
)
async def list_slots(
    unit: CurrentUnit,
    paging: Paging,
    starts_from: Annotated[
        Timestamp | None, Query(alias="from", description="Starts at this time or later. Without it: now.")
    ] = None,
    starts_before: Annotated[Timestamp | None, Query(alias="to", description="Starts before this time.")] = None,
    service: Annotated[
        str | None, Query(max_length=64, description="Slots for this service, and those for any that it fits in.")
    ] = None,
    resource_id: Annotated[str | None, Query(max_length=64)] = None,
) -> Page[SlotOut]:
    if starts_from is not None and starts_before is not None and starts_before <= starts_from:
        raise Unprocessable("to must lie after from", code="invalid_times", param="to")
    return await available_page(unit, SlotFilter(starts_from, starts_before, service, resource_id), paging)


@router.patch(
    "/{id}",
    openapi_extra=declares("calendar:write", UPDATED, RELEASED),
    summary="Change a slot's capacity or metadata; more room is released",
)
async def update_slot(id: str, body: SlotUpdate, unit: CurrentUnit, if_match: IfMatch = None) -> SlotOut:
    row = await store.get(unit, SLOT, id, lock=True)
    values = store.columns(body)
    before = row.capacity
    if values.get("capacity", before) < row.booked:
        raise Conflict(
            f"{row.booked} places are booked; cancel appointments first", code="capacity_in_use", param="capacity"
        )
    if not await store.change(unit, SLOT, row, values, version_of(if_match)):
        return SlotOut.model_validate(row)
    out: SlotOut = await store.emit_event(unit, SLOT, row, "updated")
    if row.capacity > before and row.status == "open" and row.bookable_until > await unit.now():
        emit_released(unit, row, row.capacity - before)
    return out


@router.post(
    "/{id}/close",
    openapi_extra=declares("calendar:write", CLOSED),
    summary="Close a slot: it takes no further appointments; those it has stay",
)
async def close_slot(id: str, unit: CurrentUnit) -> SlotOut:
    row = await store.get(unit, SLOT, id, lock=True)
    if row.status == "closed":
        raise IllegalTransition("it is closed already", allowed=[])
    await store.change(unit, SLOT, row, {"status": "closed"})
    out: SlotOut = await store.emit_event(unit, SLOT, row, "closed")
    return out
