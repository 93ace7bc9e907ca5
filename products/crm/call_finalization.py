"""Finalizing a call session (C-06, C-07): one transaction writes the lead, its interests, the appointment and the call.

A slot that is taken meanwhile is 409: nothing is written, and the session stays open for another slot.
"""

from typing import Annotated, Any

from pydantic import Field, StringConstraints

from products.calendar.booking import book
from products.crm.call_session_models import CALL_SESSION, CallSessionRow
from products.crm.call_sessions import open_session
from products.crm.calls import CALL, FINALIZED, CallFinalized, CallOut
from products.crm.history import tell
from products.crm.lead_models import CREATED as LEAD_CREATED
from products.crm.lead_models import Interests, LeadOut, Source
from products.crm.leads import add_lead
from products.crm.references import Reference, Text
from spine.kernel import store
from spine.kernel.errors import SpineError
from spine.kernel.resource import Body, Metadata
from spine.kernel.routes import CurrentUnit, declares, new_router
from spine.kernel.unit_of_work import UnitOfWork

Ref = Annotated[
    str,
    StringConstraints(min_length=1, max_length=1000),
    Field(description="Where it is kept: a URL or a key of your own store. It is never copied."),
]


class LeadOfCall(Body):
    source: Source
    owner_id: Reference | None = None
    metadata: Metadata = {}


class AppointmentOfCall(Body):
    slot_id: Reference
    service: Reference | None = None


class FinalizeBody(Body):
    lead: LeadOfCall
    interests: Interests = []
    appointment: AppointmentOfCall | None = None
    recording_ref: Ref | None = None
    transcript_ref: Ref | None = None
    summary: Text | None = None
    metadata: Metadata = {}


router = new_router("/crm/v1/call_sessions", "call_sessions")


@router.post(
    "/{id}/finalize",
    openapi_extra=declares("crm:write", FINALIZED, LEAD_CREATED),
    summary="Finalize a call session: lead, interests, appointment and call at once",
)
async def finalize_call_session(id: str, body: FinalizeBody, unit: CurrentUnit) -> CallFinalized:
    """A booked slot also emits `appointment.created` and `appointment.booked`, as any booking does."""
    session = await open_session(unit, id)
    lead = await add_lead(
        unit,
        session.contact_id,
        body.interests,
        source=body.lead.source,
        door="agent_finalize",
        owner_id=body.lead.owner_id,
        meta=body.lead.metadata,
    )
    appointment_id = await _book(unit, session, body.appointment)
    return await _end_call(unit, session, body, lead, appointment_id)


async def _book(unit: UnitOfWork, session: CallSessionRow, wanted: AppointmentOfCall | None) -> str | None:
    """Book the slot as anybody else would (K-11). Raises Conflict `slot_unavailable`."""
    if wanted is None:
        return None
    try:
        booked = await book(
            unit, slot_id=wanted.slot_id, contact_id=session.contact_id, service=wanted.service, booked_via="agent"
        )
    except SpineError as error:
        if error.param in ("slot_id", "service"):
            error.param = f"appointment.{error.param}"
        raise
    return booked.id


async def _end_call(
    unit: UnitOfWork, session: CallSessionRow, body: FinalizeBody, lead: LeadOut, appointment_id: str | None
) -> CallFinalized:
    """Write the call, end the session, and tell of both with all ids in one event."""
    call = await store.create(
        unit,
        CALL,
        call_session_id=session.id,
        contact_id=session.contact_id,
        lead_id=lead.id,
        interest_ids=[one.id for one in lead.interests],
        appointment_id=appointment_id,
        channel=session.channel,
        fields=session.fields,
        recording_ref=body.recording_ref,
        transcript_ref=body.transcript_ref,
        summary=body.summary,
        started_at=session.created_at,
        ended_at=await unit.now(),
        meta=body.metadata,
    )
    await store.change(unit, CALL_SESSION, session, {"status": "finalized", "call_id": call.id})
    fields: dict[str, Any] = CallOut.model_validate(call).model_dump()
    interest_id = call.interest_ids[0] if call.interest_ids else None
    out = CallFinalized(**fields, call_id=call.id, interest_id=interest_id)
    unit.emit(FINALIZED, out, sequence=call.version)
    detail = {name: fields[name] for name in ("lead_id", "interest_ids", "appointment_id", "call_session_id")}
    await tell(unit, "call.finalized", session.contact_id, lead.id, detail={"call_id": call.id, **detail})
    return out
