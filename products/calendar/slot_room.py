"""The count of a slot: a booking is a conditional write on it, and the database is the referee (K-01, K-03)."""

from datetime import timedelta
from typing import Any, Final

from sqlalchemy import func, text, update

from products.calendar.appointment_models import SlotTime
from products.calendar.slot_models import RELEASED, SlotOut, SlotReleased, SlotRow
from spine.kernel import ids, store
from spine.kernel.errors import Conflict, Unprocessable
from spine.kernel.unit_of_work import UnitOfWork

_TERMS: Final = text(
    "SELECT s.resource_id, s.service AS slot_service, s.starts_at, s.ends_at, v.slug AS service, v.name, v.duration_min, "
    "v.buffer_min, v.reminder_minutes, s.status = 'open' AND s.booked < s.capacity AND s.bookable_until > now() AS bookable "
    "FROM spine.slots s "
    "LEFT JOIN spine.services v ON v.workspace_id = s.workspace_id AND v.slug = coalesce(:service, s.service) "
    "WHERE s.workspace_id = :ws AND s.id = :id"
)


def unavailable() -> Conflict:
    """Return the error for a slot that cannot be won: past, closed, full, or its resource is booked at that time."""
    return Conflict(
        "this slot can no longer be booked; read the available ones", code="slot_unavailable", param="slot_id"
    )


async def read_terms(unit: UnitOfWork, slot_id: str, service: str | None) -> Any:
    """Return a slot's time and the terms of the service that is to be booked in it.

    Raises Conflict `slot_unavailable` if the slot is lost already: this read decides nothing, but whoever is late need not
    wait for the slot's lock. Raises Unprocessable: `reference_not_found` for an unknown slot or service, `service_mismatch`
    for a slot of another service, `slot_too_short` for a service that does not fit in.
    """
    terms = None
    if ids.is_id(slot_id, ids.PREFIXES["slot"]):
        values = {"ws": unit.workspace_id, "id": slot_id, "service": service}
        terms = (await unit.session.execute(_TERMS, values)).one_or_none()
    if terms is None:
        raise store.reference_not_found("slot_id")
    if service is not None and terms.service is None:
        raise store.reference_not_found("service")
    if service is not None and terms.slot_service not in (None, service):
        raise Unprocessable(
            f"this slot is for the service {terms.slot_service}", code="service_mismatch", param="service"
        )
    if terms.service is not None and terms.ends_at - terms.starts_at < timedelta(minutes=terms.duration_min):
        raise Unprocessable(
            f"{terms.service} takes {terms.duration_min} minutes; the slot is shorter",
            code="slot_too_short",
            param="slot_id",
        )
    if not terms.bookable:
        raise unavailable()
    return terms


async def win(unit: UnitOfWork, slot_id: str) -> SlotRow:
    """Take one place of an open slot that has not begun. Raises Conflict `slot_unavailable`."""
    statement = (
        update(SlotRow)
        .where(
            SlotRow.workspace_id == unit.workspace_id,
            SlotRow.id == slot_id,
            SlotRow.status == "open",
            SlotRow.booked < SlotRow.capacity,
            SlotRow.bookable_until > func.now(),
        )
        .values(booked=SlotRow.booked + 1, version=SlotRow.version + 1, updated_at=func.now())
        .returning(SlotRow)
    )
    row: SlotRow | None = await unit.session.scalar(statement, execution_options={"populate_existing": True})
    if row is None:
        raise unavailable()
    return row


async def release(unit: UnitOfWork, slot_id: str) -> None:
    """Give one place back. Emits `slot.released` if the slot can be booked: it is open and has not begun."""
    statement = (
        update(SlotRow)
        .where(SlotRow.workspace_id == unit.workspace_id, SlotRow.id == slot_id)
        .values(booked=SlotRow.booked - 1, version=SlotRow.version + 1, updated_at=func.now())
        .returning(SlotRow, (SlotRow.bookable_until > func.now()).label("bookable"))
    )
    slot, bookable = (await unit.session.execute(statement, execution_options={"populate_existing": True})).one()
    if slot.status == "open" and bookable:
        emit_released(unit, slot, 1)


def emit_released(unit: UnitOfWork, slot: SlotRow, places: int) -> None:
    """Emit `slot.released` for these places of the slot, for which people may wait (K-08)."""
    out = SlotOut.model_validate(slot)
    unit.emit(RELEASED, SlotReleased(**out.model_dump(), released=places), sequence=slot.version)


def slot_time(slot: Any, slot_id: str) -> SlotTime:
    """Return where and when a slot, or the appointment in it, is."""
    return SlotTime(slot_id=slot_id, resource_id=slot.resource_id, starts_at=slot.starts_at, ends_at=slot.ends_at)
