"""Appointments: book, read and list them, and say how they ended."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import Query
from sqlalchemy import ColumnElement

from products.calendar.appointment_models import (
    APPOINTMENT,
    BOOKED,
    COMPLETED,
    CREATED,
    NO_SHOW,
    AppointmentCreate,
    AppointmentOut,
    AppointmentRow,
    Status,
)
from products.calendar.booking import book, history_entry
from spine.kernel import store
from spine.kernel.crud import crud_router
from spine.kernel.errors import IllegalTransition
from spine.kernel.resource import Timestamp
from spine.kernel.routes import CurrentUnit, Paging, declares
from spine.kernel.store import Page
from spine.kernel.unit_of_work import UnitOfWork

router = crud_router(APPOINTMENT, "calendar", "get")
Reference = Annotated[str | None, Query(max_length=64)]


@router.post(
    "",
    status_code=201,
    openapi_extra=declares("calendar:write", CREATED, BOOKED, tool="calendar_book"),
    summary="Book a slot for a contact",
)
async def create_appointment(body: AppointmentCreate, unit: CurrentUnit) -> AppointmentOut:
    return await book(
        unit,
        slot_id=body.slot_id,
        contact_id=body.contact_id,
        service=body.service,
        booked_via=body.booked_via,
        metadata=body.metadata,
    )


@router.get("", openapi_extra=declares("calendar:read"), summary="List appointments, newest first")
async def list_appointments(
    unit: CurrentUnit,
    paging: Paging,
    contact_id: Reference = None,
    slot_id: Reference = None,
    resource_id: Reference = None,
    status: Status | None = None,
    service: Reference = None,
    starts_from: Annotated[Timestamp | None, Query(alias="from", description="Starts at this time or later.")] = None,
    starts_before: Annotated[Timestamp | None, Query(alias="to", description="Starts before this time.")] = None,
) -> Page[AppointmentOut]:
    indexed = _equal({"contact_id": contact_id, "slot_id": slot_id, "resource_id": resource_id})
    checked = _equal({"status": status, "service": service}) + _between(starts_from, starts_before)
    filters = f"{contact_id} {slot_id} {resource_id} {status} {service} {starts_from} {starts_before}"
    return await store.page(
        unit, APPOINTMENT, paging.cursor, paging.limit, *indexed[:1], checked=indexed[1:] + checked, filters=filters
    )


def _equal(values: dict[str, str | None]) -> list[ColumnElement[bool]]:
    return [getattr(AppointmentRow, name) == value for name, value in values.items() if value is not None]


def _between(since: datetime | None, until: datetime | None) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if since is not None:
        conditions.append(AppointmentRow.starts_at >= since)
    if until is not None:
        conditions.append(AppointmentRow.starts_at < until)
    return conditions


@router.post(
    "/{id}/complete", openapi_extra=declares("calendar:write", COMPLETED), summary="Say that an appointment took place"
)
async def complete_appointment(id: str, unit: CurrentUnit) -> AppointmentOut:
    return await _end(unit, id, "completed")


@router.post(
    "/{id}/no_show",
    openapi_extra=declares("calendar:write", NO_SHOW),
    summary="Say that the contact did not come; flags the appointment for follow-up",
)
async def mark_appointment_no_show(id: str, unit: CurrentUnit) -> AppointmentOut:
    return await _end(unit, id, "no_show", follow_up=True)


async def _end(unit: UnitOfWork, id: str, to: Status, **values: Any) -> AppointmentOut:
    """Set how an appointment ended. Raises IllegalTransition, also for one that has not begun (K-10)."""
    row = await store.get(unit, APPOINTMENT, id, lock=True)
    now = await unit.now()
    if row.status == "booked" and row.begins_at > now:
        raise IllegalTransition(
            f"it begins at {row.starts_at.isoformat()}; before that it can become: cancelled", allowed=["cancelled"]
        )
    history = [*row.history, history_entry(unit, to, now)]
    row = await store.transition(unit, APPOINTMENT, id, to, history=history, **values)
    out: AppointmentOut = await store.emit_event(unit, APPOINTMENT, row, to)
    return out
