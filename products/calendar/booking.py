"""Booking: the one function that every door calls: the API, the page, agents, staff and the waitlist (K-02, K-05, K-13).

    read the terms ─► take a place of the slot (conditional UPDATE) ─► INSERT … ON CONFLICT DO NOTHING ─► events, reminder

The UPDATE lets a slot fill to its capacity. The exclusion constraint of appointments lets no two overlapping slots of one
resource be booked. A plain INSERT under it deadlocks with its rivals; ON CONFLICT waits for them instead (conventions 2.14).
"""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, literal, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from products.calendar.appointment_models import (
    APPOINTMENT,
    BOOKED,
    CREATED,
    AppointmentOut,
    AppointmentRow,
    BookedVia,
    HistoryEntry,
)
from products.calendar.reminders import schedule_reminder
from products.calendar.slot_room import read_terms, unavailable, win
from spine.kernel import ids, store
from spine.kernel.database_errors import constraint
from spine.kernel.unit_of_work import UnitOfWork


async def book(
    unit: UnitOfWork,
    *,
    slot_id: str,
    contact_id: str,
    service: str | None,
    booked_via: BookedVia,
    metadata: dict[str, str] | None = None,
) -> AppointmentOut:
    """Book a slot for a contact in the unit's transaction, with its events and its first reminder.

    Raises Conflict `slot_unavailable` for a slot that is past, closed or full, or whose resource is booked at that time;
    Unprocessable for references that lead nowhere and for a service that does not fit. Nothing is changed then.
    """
    terms = await read_terms(unit, slot_id, service)
    async with unit.session.begin_nested():
        slot = await win(unit, slot_id)
        id = ids.mint(APPOINTMENT.prefix)
        now = ids.created_at(id)
        row = await _insert(
            unit,
            {
                "id": id,
                "created_at": now,
                "updated_at": now,
                "slot_id": slot_id,
                "resource_id": slot.resource_id,
                "contact_id": contact_id,
                "service": terms.service,
                "booked_via": booked_via,
                "starts_at": slot.starts_at,
                "ends_at": slot.ends_at,
                "begins_at": slot.bookable_until,
                "occupied": occupied(slot.starts_at, slot.ends_at, terms.buffer_min),
                "history": [history_entry(unit, "booked", now, to_slot_id=slot_id)],
                "meta": metadata or {},
            },
        )
    out = AppointmentOut.model_validate(row)
    for event in (CREATED, BOOKED):
        unit.emit(event, out, sequence=row.version)
    await schedule_reminder(unit, row, terms.reminder_minutes)
    return out


async def _insert(unit: UnitOfWork, values: dict[str, Any]) -> AppointmentRow:
    if not ids.is_id(values["contact_id"], ids.PREFIXES["contact"]):
        raise store.reference_not_found("contact_id")
    statement = (
        insert(AppointmentRow)
        .values(workspace_id=unit.workspace_id, **values)
        .on_conflict_do_nothing()
        .returning(AppointmentRow)
    )
    try:
        row: AppointmentRow | None = await unit.session.scalar(statement)
    except IntegrityError as error:
        if constraint(error) == "appointments_contact":
            raise store.reference_not_found("contact_id") from error
        raise
    if row is None:
        raise unavailable()
    return row


def occupied(starts_at: datetime, ends_at: datetime, buffer_min: int | None) -> Any:
    """Return the range in which no other slot of the resource is booked: the slot's time, and the buffer after it."""
    return func.tstzrange(literal(starts_at), literal(ends_at + timedelta(minutes=buffer_min or 0)))


def history_entry(unit: UnitOfWork, kind: Any, at: datetime, **more: Any) -> dict[str, Any]:
    """Return an entry for an appointment's history, with the unit's caller as the actor."""
    entry = HistoryEntry(at=at, kind=kind, actor=unit.caller.actor, **more)
    return entry.model_dump(mode="json", exclude_none=True)


async def upcoming_appointments(unit: UnitOfWork, contact_id: str, limit: int) -> list[AppointmentOut]:
    """Return a contact's booked appointments that have not begun, the next one first."""
    query = (
        select(AppointmentRow)
        .where(
            AppointmentRow.workspace_id == unit.workspace_id,
            AppointmentRow.contact_id == contact_id,
            AppointmentRow.status == "booked",
            AppointmentRow.begins_at > func.now(),
        )
        .order_by(AppointmentRow.begins_at, AppointmentRow.id)
        .limit(limit)
    )
    return [AppointmentOut.model_validate(row) for row in await unit.session.scalars(query)]
