"""Reminders: one job for each booked appointment, due at its next reminder (K-09).

    book ─► job `calendar.reminder` ─► notice queued, job of the next reminder ─► job `calendar.reminder_sent` waits for the
    message ─► a provider accepted it ─► appointment.reminder_sent

A reschedule moves the job, a cancellation deletes it.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from sqlalchemy import select

from policies.reminders import next_reminder
from products.calendar import notices
from products.calendar.appointment_models import (
    REMINDER_SENT,
    AppointmentOut,
    AppointmentReminderSent,
    AppointmentRow,
)
from products.calendar.services import find_services
from spine.kernel import jobs, timeline
from spine.kernel.jobs import Job
from spine.kernel.unit_of_work import UnitOfWork
from spine.notifications.message_models import MessageRow, Status

REMIND: Final = "calendar.reminder"
WATCH: Final = "calendar.reminder_sent"
_ACCEPTED: Final = frozenset({Status.SENT, Status.DELIVERED, Status.READ})
_ENDED: Final = frozenset({Status.FAILED, Status.CANCELLED})
_FIRST_LOOK_S: Final = 4
_LONGEST_LOOK_S: Final = 600


async def schedule_reminder(unit: UnitOfWork, row: AppointmentRow, minutes_before: Sequence[int] | None) -> bool:
    """Schedule the appointment's next reminder, or move it. Returns False if none is to come."""
    reminder = next_reminder(row.begins_at, minutes_before or (), unit.platform.clock.now())
    if reminder is None:
        return False
    args = {"slot_id": row.slot_id, "minutes_before": reminder.minutes_before}
    await jobs.schedule(unit, REMIND, row.id, reminder.due_at, args=args)
    return True


async def remind(unit: UnitOfWork, job: Job) -> None:
    """Queue a reminder to the contact, and schedule the next one."""
    row = await _find(unit, job.subject_id)
    if row is None or row.status != "booked" or row.slot_id != job.args["slot_id"]:
        return
    sent = await notices.tell(
        unit,
        notices.REMINDER,
        row.contact_id,
        row.id,
        resource_id=row.resource_id,
        service=row.service,
        starts_at=row.starts_at,
    )
    minutes_before = job.args["minutes_before"]
    if sent.message_id is None:
        detail = {"appointment_id": row.id, "code": sent.refused, "reason": sent.reason}
        await timeline.append(unit, row.contact_id, "appointment.reminder_not_sent", detail=detail)
    else:
        await _watch(
            unit, sent.message_id, {"appointment_id": row.id, "minutes_before": minutes_before, "look_s": _FIRST_LOOK_S}
        )
    if row.service is not None:
        service = (await find_services(unit, {row.service}))[row.service]
        shorter = [minutes for minutes in service.reminder_minutes if minutes < minutes_before]
        await schedule_reminder(unit, row, shorter)


async def watch(unit: UnitOfWork, job: Job) -> None:
    """Emit `appointment.reminder_sent` once a provider accepted the reminder; look again while none did."""
    query = select(MessageRow.status, MessageRow.sent_at).where(
        MessageRow.workspace_id == unit.workspace_id, MessageRow.id == job.subject_id
    )
    message = (await unit.session.execute(query)).one_or_none()
    if message is None:
        return
    if message.status in _ACCEPTED or message.sent_at is not None:
        row = await _find(unit, job.args["appointment_id"])
        if row is not None:
            data = AppointmentReminderSent(
                **AppointmentOut.model_validate(row).model_dump(),
                message_id=job.subject_id,
                minutes_before=job.args["minutes_before"],
            )
            unit.emit(REMINDER_SENT, data, sequence=row.version)
    elif message.status not in _ENDED:
        await _watch(unit, job.subject_id, job.args)


async def _watch(unit: UnitOfWork, message_id: str, args: dict[str, object]) -> None:
    """Wait for the message. A change of it at this very moment is not noticed, so look again soon, then ever less often."""
    look_s = int(str(args["look_s"]))
    due_at = unit.platform.clock.now() + timedelta(seconds=look_s)
    later = {**args, "look_s": min(look_s * 2, _LONGEST_LOOK_S)}
    await jobs.schedule(unit, WATCH, message_id, due_at, args=later, message_id=message_id)


async def _find(unit: UnitOfWork, id: str) -> AppointmentRow | None:
    query = select(AppointmentRow).where(AppointmentRow.workspace_id == unit.workspace_id, AppointmentRow.id == id)
    row: AppointmentRow | None = await unit.session.scalar(query)
    return row
