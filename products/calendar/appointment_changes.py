"""Changes of booked appointments: another slot, or none. Old and new slot change in one transaction (K-06, K-07).

Every change locks in one order, so that changes that cross do not deadlock: the reminder's job, the appointment, the new
resource, the slots by their ids. What takes time, the notice to the contact, comes before the slots. The appointment's own row
is written last, when nothing is left to wait for: rivals that meet it in the exclusion constraint wait for this transaction.
"""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from products.calendar import notices
from products.calendar.appointment_models import (
    APPOINTMENT,
    CANCELLED,
    RESCHEDULED,
    AppointmentCancelled,
    AppointmentOut,
    AppointmentRescheduled,
    AppointmentRow,
    CancelBody,
    RescheduleBody,
)
from products.calendar.booking import history_entry, occupied
from products.calendar.reminders import REMIND, schedule_reminder
from products.calendar.resources import CalendarResourceRow
from products.calendar.slot_models import RELEASED, SlotRow
from products.calendar.slot_room import read_terms, release, slot_time, unavailable, win
from spine.kernel import ids, jobs, store
from spine.kernel.database_errors import constraint
from spine.kernel.errors import Conflict, IllegalTransition
from spine.kernel.routes import CurrentUnit, declares, new_router
from spine.kernel.unit_of_work import UnitOfWork

router = new_router("/calendar/v1/appointments", "appointments")

MAX_MOVES: Final = 50
"""Reschedules of one appointment. Each is an entry in its history."""


async def _lock_booked(unit: UnitOfWork, id: str) -> AppointmentRow:
    """Lock a booked appointment, without its reminder's job. Raises NotFound, IllegalTransition."""
    if not ids.is_id(id, APPOINTMENT.prefix):
        raise store.not_found(APPOINTMENT)
    await jobs.cancel(unit, REMIND, id)
    row: AppointmentRow = await store.get(unit, APPOINTMENT, id, lock=True)
    if row.status != "booked":
        raise IllegalTransition(f"it is {row.status}; that is final", allowed=[])
    return row


@router.post(
    "/{id}/cancel",
    openapi_extra=declares("calendar:write", CANCELLED, RELEASED),
    summary="Cancel an appointment; its place is free at once",
)
async def cancel_appointment(id: str, body: CancelBody, unit: CurrentUnit) -> AppointmentOut:
    row = await _lock_booked(unit, id)
    sent = await notices.tell(
        unit, notices.CANCELLED, row.contact_id, row.id,
        resource_id=row.resource_id, service=row.service, starts_at=row.starts_at, reason=body.reason,
    )  # fmt: skip
    message_ids = notices.message_ids(sent)
    entry = history_entry(unit, "cancelled", await unit.now(), reason=body.reason, message_ids=message_ids)
    await release(unit, row.slot_id)
    values = {"status": "cancelled", "cancel_reason": body.reason, "history": [*row.history, entry]}
    await store.change(unit, APPOINTMENT, row, values)
    out = AppointmentOut.model_validate(row)
    unit.emit(CANCELLED, AppointmentCancelled(**out.model_dump(), message_ids=message_ids), sequence=row.version)
    return out


@router.post(
    "/{id}/reschedule",
    openapi_extra=declares("calendar:write", RESCHEDULED, RELEASED),
    summary="Move an appointment to another slot; if that one is lost, the old one is kept",
)
async def reschedule_appointment(id: str, body: RescheduleBody, unit: CurrentUnit) -> AppointmentOut:
    row = await _lock_booked(unit, id)
    if row.slot_id == body.slot_id:
        raise Conflict("the appointment is in this slot already", code="slot_unavailable", param="slot_id")
    if sum(entry["kind"] == "rescheduled" for entry in row.history) >= MAX_MOVES:
        raise Conflict(f"an appointment is moved {MAX_MOVES} times at most; cancel it", code="too_many_reschedules")
    terms = await read_terms(unit, body.slot_id, row.service)
    old = slot_time(row, row.slot_id)
    new = slot_time(terms, body.slot_id)
    message_ids = await _tell_of_move(unit, row, terms.service, new.resource_id, new.starts_at)
    now = await unit.now()
    entry = history_entry(
        unit, "rescheduled", now, from_slot_id=old.slot_id, to_slot_id=new.slot_id, message_ids=message_ids
    )
    slot = await _swap(unit, row.slot_id, body.slot_id, terms.resource_id)
    occupied_range = occupied(slot.starts_at, slot.ends_at, terms.buffer_min)
    history = [*row.history, entry]
    await _move(unit, row, slot, service=terms.service, occupied=occupied_range, history=history, updated_at=now)
    await schedule_reminder(unit, row, terms.reminder_minutes)
    out = AppointmentOut.model_validate(row)
    data = AppointmentRescheduled(**out.model_dump(), from_=old, to=new, message_ids=message_ids)
    unit.emit(RESCHEDULED, data, sequence=row.version)
    return out


async def _swap(unit: UnitOfWork, old_id: str, new_id: str, resource_id: str) -> SlotRow:
    """Take a place of the new slot and give the old one back. Returns the new slot. Raises Conflict `slot_unavailable`.

    The appointment's row moves by an UPDATE, and two of these under the exclusion constraint may deadlock. So moves into the
    time of one resource take turns: each locks the resource. Bookings do not.
    """
    resource = select(CalendarResourceRow.id).where(
        CalendarResourceRow.workspace_id == unit.workspace_id, CalendarResourceRow.id == resource_id
    )
    await unit.session.execute(resource.with_for_update(key_share=True))
    slots = select(SlotRow.id).where(SlotRow.workspace_id == unit.workspace_id, SlotRow.id.in_([old_id, new_id]))
    await unit.session.execute(slots.order_by(SlotRow.id).with_for_update(key_share=True))
    won = await win(unit, new_id)
    await release(unit, old_id)
    return won


async def _move(unit: UnitOfWork, row: AppointmentRow, slot: SlotRow, **values: Any) -> None:
    """Write the new slot into the appointment. Raises Conflict `slot_unavailable` if the resource is booked then."""
    row.slot_id, row.resource_id = slot.id, slot.resource_id
    row.starts_at, row.ends_at, row.begins_at = slot.starts_at, slot.ends_at, slot.bookable_until
    for name, value in values.items():
        setattr(row, name, value)
    row.version += 1
    try:
        await unit.session.flush()
    except IntegrityError as error:
        if constraint(error) == "appointments_overlap":
            raise unavailable() from error
        raise


async def _tell_of_move(
    unit: UnitOfWork, row: AppointmentRow, service: str | None, resource_id: str, starts_at: datetime
) -> list[str]:
    sent = await notices.tell(
        unit, notices.RESCHEDULED, row.contact_id, row.id,
        resource_id=resource_id, service=service, starts_at=starts_at, local_times={"previous_starts": row.starts_at},
    )  # fmt: skip
    return notices.message_ids(sent)
