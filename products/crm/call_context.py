"""The context of a call session: all that an agent needs to know of the contact, in one answer of bounded size (C-04)."""

from collections.abc import Sequence
from typing import Any, Final, TypeVar

from pydantic import BaseModel, Field
from sqlalchemy import select, text

from policies.lead_stages import OPEN
from products.calendar.appointment_models import AppointmentOut
from products.calendar.booking import upcoming_appointments
from products.crm.call_session_models import (
    CALL_SESSION,
    CallSessionOut,
    CallSessionRow,
    FieldToCollect,
    session_out,
)
from products.crm.deals import DealOut, DealRow
from products.crm.lead_models import LeadOut, LeadRow
from products.tickets.ticket_models import TicketOut
from products.tickets.tickets import open_tickets
from spine.directory.contacts import CONTACT, ContactOut, ContactRow
from spine.kernel import store
from spine.kernel.routes import CurrentUnit, declares, new_router
from spine.kernel.timeline import TimelineEntry
from spine.kernel.unit_of_work import UnitOfWork

Shown = TypeVar("Shown", bound=BaseModel)
MOST: Final = 10
"""Leads, deals, appointments and tickets in a context, of each."""
MOST_TIMELINE_ENTRIES: Final = 20
SECTION_BYTES: Final = 16 * 1024
"""The size of each part of a context, as JSON."""
_NEWEST_ENTRIES: Final = text(
    "SELECT id, subject_id, kind, actor, at, request_id, changes, detail, "
    "octet_length(changes::text) + octet_length(detail::text) AS size "
    "FROM spine.timeline_entries WHERE workspace_id = :ws AND subject_id = :contact_id ORDER BY seq DESC LIMIT :most"
)
_ENTRY_BYTES: Final = 2048
"""The changes and details of a timeline entry that are shown; the entry itself is shown in any case."""

router = new_router("/crm/v1/call_sessions", "call_sessions")


class CallContext(BaseModel):
    """What is known of the contact of a call session, newest first, and what is still to be asked."""

    object: str = "call_context"
    call_session: CallSessionOut
    contact: ContactOut
    open_leads: list[LeadOut]
    open_deals: list[DealOut]
    timeline: list[TimelineEntry]
    upcoming_appointments: list[AppointmentOut] = Field(description="The next one first.")
    open_tickets: list[TicketOut]
    fields_to_collect: list[FieldToCollect] = Field(description="Fields of the schema that nobody has given yet.")
    truncated: list[str] = Field(description="The parts that would have been too large, and are shown in part.")


@router.get(
    "/{id}/context",
    openapi_extra=declares("crm:read", tool="crm_get_context"),
    summary="Read all that is known of the session's contact, at once",
)
async def get_call_context(id: str, unit: CurrentUnit) -> CallContext:
    session: CallSessionRow = await store.get(unit, CALL_SESSION, id)
    row: ContactRow = await store.get(unit, CONTACT, session.contact_id)
    truncated: list[str] = []
    contact = ContactOut.model_validate(row)
    if len(contact.model_dump_json()) > SECTION_BYTES:
        truncated.append("contact.fields")
        contact = contact.model_copy(update={"fields": {}})

    def part(name: str, found: Sequence[Shown]) -> list[Shown]:
        shown = _that_fit(found)
        if len(shown) < len(found) and name not in truncated:
            truncated.append(name)
        return shown

    return CallContext(
        call_session=session_out(session, await unit.now()),
        contact=contact,
        open_leads=part("open_leads", await _open_leads(unit, row.id)),
        open_deals=part("open_deals", await _open_deals(unit, row.id)),
        timeline=part("timeline", await _newest_entries(unit, row.id, truncated)),
        upcoming_appointments=part("upcoming_appointments", await upcoming_appointments(unit, row.id, MOST)),
        open_tickets=part("open_tickets", await open_tickets(unit, row.id, MOST)),
        fields_to_collect=fields_to_collect(session, row),
        truncated=truncated,
    )


def _that_fit(found: Sequence[Shown]) -> list[Shown]:
    """Return those that have SECTION_BYTES together; one that does not fit any more is left out."""
    shown, room = [], SECTION_BYTES
    for one in found:
        size = len(one.model_dump_json().encode())
        if size <= room:
            shown.append(one)
            room -= size
    return shown


def fields_to_collect(session: CallSessionRow, contact: ContactRow) -> list[FieldToCollect]:
    """Return the fields of the session's schema that neither the session nor the contact has a value for."""
    known: dict[str, Any] = {**contact.fields, "phone": contact.phone_e164, "email": contact.email}
    if contact.name not in (contact.phone_e164, contact.email):  # else it is a stand-in until the name is known
        known["name"] = contact.name
    known |= {name: value for name, value in session.fields.items() if value is not None}
    schema = [FieldToCollect.model_validate(field) for field in session.field_schema]
    return [field for field in schema if known.get(field.name) in (None, "")]


async def _open_leads(unit: UnitOfWork, contact_id: str) -> list[LeadOut]:
    query = select(LeadRow).where(
        LeadRow.workspace_id == unit.workspace_id, LeadRow.contact_id == contact_id, LeadRow.stage.in_(OPEN)
    )
    return [
        LeadOut.model_validate(row) for row in await unit.session.scalars(query.order_by(LeadRow.id.desc()).limit(MOST))
    ]


async def _open_deals(unit: UnitOfWork, contact_id: str) -> list[DealOut]:
    query = select(DealRow).where(
        DealRow.workspace_id == unit.workspace_id, DealRow.contact_id == contact_id, DealRow.status == "open"
    )
    return [
        DealOut.model_validate(row) for row in await unit.session.scalars(query.order_by(DealRow.id.desc()).limit(MOST))
    ]


async def _newest_entries(unit: UnitOfWork, contact_id: str, truncated: list[str]) -> list[TimelineEntry]:
    rows = await unit.session.execute(
        _NEWEST_ENTRIES, {"ws": unit.workspace_id, "contact_id": contact_id, "most": MOST_TIMELINE_ENTRIES}
    )
    entries = []
    for row in rows.mappings():
        too_large = row["size"] > _ENTRY_BYTES
        entries.append(TimelineEntry.model_validate({**row, **({"changes": [], "detail": {}} if too_large else {})}))
        if too_large and "timeline" not in truncated:
            truncated.append("timeline")
    return entries
