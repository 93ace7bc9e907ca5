"""What the calendar tells contacts: reminders, moved and cancelled appointments, and offers. Times are local to the resource."""

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import select

from products.calendar.resources import CalendarResourceRow
from products.calendar.services import ServiceRow
from spine.kernel.unit_of_work import UnitOfWork
from spine.notifications.notices import Notice, SentNotice, send_notice

_VARS = ("service", "resource", "starts", "starts_at")
REMINDER = Notice(
    "appointment_reminder", "Your appointment: {{ starts }}", "Reminder: {{ service }}, {{ starts }}.", _VARS
)
RESCHEDULED = Notice(
    "appointment_rescheduled",
    "Your appointment has moved to {{ starts }}",
    "Your appointment has moved: {{ service }}, now {{ starts }}, before {{ previous_starts }}.",
    (*_VARS, "previous_starts"),
)
CANCELLED = Notice(
    "appointment_cancelled",
    "Your appointment is cancelled: {{ starts }}",
    "Your appointment is cancelled: {{ service }}, {{ starts }}.",
    (*_VARS, "reason"),
)
OFFER = Notice(
    "waitlist_offer",
    "A time is free: {{ starts }}",
    "A time is free: {{ service }}, {{ starts }}. It is offered to you until {{ expires }}.",
    (*_VARS, "expires"),
)


def local_time(at: datetime, time_zone: str) -> str:
    """Return a time as people of the zone write it, such as `Sun 25 Oct 2026, 02:30 CEST`."""
    return f"{at.astimezone(ZoneInfo(time_zone)):%a %d %b %Y, %H:%M %Z}"


async def tell(
    unit: UnitOfWork,
    notice: Notice,
    contact_id: str,
    subject_id: str,
    *,
    resource_id: str,
    service: str | None,
    starts_at: datetime,
    local_times: dict[str, datetime] | None = None,
    **vars: Any,
) -> SentNotice:
    """Queue a notice to a contact about a subject, whose id is in the message's metadata.

    `local_times` are further variables that hold times of the resource's zone.
    """
    names = select(CalendarResourceRow.name, CalendarResourceRow.time_zone, ServiceRow.name.label("service")).outerjoin(
        ServiceRow, (ServiceRow.workspace_id == CalendarResourceRow.workspace_id) & (ServiceRow.slug == service)
    )
    found = (
        await unit.session.execute(
            names.where(CalendarResourceRow.workspace_id == unit.workspace_id, CalendarResourceRow.id == resource_id)
        )
    ).one()
    values = {
        "service": found.service or found.name,
        "resource": found.name,
        "starts": local_time(starts_at, found.time_zone),
        "starts_at": starts_at.isoformat(),
        **{name: local_time(at, found.time_zone) for name, at in (local_times or {}).items()},
        **vars,
    }
    return await send_notice(unit, notice, contact_id, values, metadata={"subject_id": subject_id})


def message_ids(sent: SentNotice) -> list[str]:
    """Return the ids of the messages that a notice became: one, or none if it cannot be sent."""
    return [] if sent.message_id is None else [sent.message_id]
