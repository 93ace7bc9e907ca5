"""Calls: finalized call sessions, with the ids of what each led to. Recordings and transcripts are references, never copies."""

from datetime import datetime
from typing import Any

from pydantic import Field
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from products.crm.list_filters import filtered_page
from products.crm.references import Channel, Reference
from spine.kernel import store
from spine.kernel.crud import crud_router
from spine.kernel.events import EventType
from spine.kernel.resource import Resource, ResourceOut, TenantRow
from spine.kernel.routes import CurrentUnit, Paging, declares
from spine.kernel.store import Page


class CallRow(TenantRow):
    __tablename__ = "calls"
    call_session_id: Mapped[str]
    contact_id: Mapped[str]
    lead_id: Mapped[str]
    interest_ids: Mapped[list[str]] = mapped_column(JSONB, default=list)
    appointment_id: Mapped[str | None]
    channel: Mapped[str]
    fields: Mapped[dict[str, Any]] = mapped_column(default=dict)
    recording_ref: Mapped[str | None]
    transcript_ref: Mapped[str | None]
    summary: Mapped[str | None]
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime]

    constraint_errors = {  # read-only
        "calls_appointment": lambda: store.reference_not_found("appointment_id"),
    }


class CallOut(ResourceOut):
    object: str = "call"
    call_session_id: str
    contact_id: str
    lead_id: str
    interest_ids: list[str]
    appointment_id: str | None = Field(description="Null if no appointment was asked for.")
    channel: str
    fields: dict[str, Any] = Field(description="What the session had collected.")
    recording_ref: str | None
    transcript_ref: str | None
    summary: str | None
    started_at: datetime
    ended_at: datetime


class CallFinalized(CallOut):
    """A call, and the ids of all that its transaction wrote."""

    call_id: str
    interest_id: str | None = Field(description="The first of `interest_ids`; null if no interest was given.")
    status: str = "finalized"


FINALIZED = EventType(
    "call.finalized", CallFinalized, "A call session was finalized: lead, interests, call and appointment were written."
)
CALL = Resource(noun="call", row=CallRow, create=None, update=None, out=CallOut, scope="crm", events=(FINALIZED,))

router = crud_router(CALL, "crm", "get")


@router.get("", openapi_extra=declares("crm:read"), summary="List calls, newest first")
async def list_calls(
    unit: CurrentUnit,
    paging: Paging,
    contact_id: Reference | None = None,
    lead_id: Reference | None = None,
    channel: Channel | None = None,
) -> Page[CallOut]:
    return await filtered_page(
        unit,
        CALL,
        paging,
        (CallRow.lead_id, lead_id),
        (CallRow.contact_id, contact_id),
        checked=[(CallRow.channel, channel)],
    )
