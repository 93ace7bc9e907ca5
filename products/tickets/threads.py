"""Thread entries: what was said about a ticket. They are only appended; a correction is a new entry (T-01)."""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from products.tickets.ticket_models import TICKET, EntryText
from spine.kernel import store, timeline
from spine.kernel.events import Actor, EventType
from spine.kernel.resource import Body, Metadata, Resource, ResourceOut, TenantRow
from spine.kernel.routes import CurrentUnit, Paging, declares, new_router
from spine.kernel.store import Page
from spine.kernel.unit_of_work import UnitOfWork


class EntryKind(StrEnum):
    """Comments are for the contact, notes for the team; system entries are Spine's own."""

    COMMENT = "comment"
    NOTE = "note"
    SYSTEM = "system"


class ThreadEntryRow(TenantRow):
    __tablename__ = "thread_entries"
    ticket_id: Mapped[str]
    kind: Mapped[str]
    author: Mapped[dict[str, Any]] = mapped_column(JSONB)
    body: Mapped[str]


class ThreadEntryCreate(Body):
    kind: Annotated[Literal["comment", "note"], Field(description="A comment for the contact, or a note for the team.")]
    body: EntryText
    metadata: Metadata = {}


class ThreadEntryOut(ResourceOut):
    object: str = "thread_entry"
    ticket_id: str
    kind: EntryKind
    author: Actor
    body: str


REPLIED = EventType("ticket.replied", ThreadEntryOut, "Somebody added a comment or a note to a ticket's thread.")
THREAD_ENTRY = Resource(
    noun="thread_entry",
    row=ThreadEntryRow,
    create=ThreadEntryCreate,
    update=None,
    out=ThreadEntryOut,
    scope="tickets",
    events=(REPLIED,),
)

router = new_router(f"/tickets/v1/{TICKET.plural}", THREAD_ENTRY.plural, THREAD_ENTRY)


async def add_entry(
    unit: UnitOfWork, ticket_id: str, kind: EntryKind, body: str, metadata: dict[str, str] | None = None
) -> ThreadEntryOut:
    """Append an entry to a ticket's thread, with the unit's caller as its author."""
    row = await store.create(
        unit,
        THREAD_ENTRY,
        ticket_id=ticket_id,
        kind=kind,
        body=body,
        author=unit.caller.actor.model_dump(),
        meta=metadata or {},
    )
    return ThreadEntryOut.model_validate(row)


@router.post(
    "/{id}/thread_entries",
    status_code=201,
    openapi_extra=declares("tickets:triage", REPLIED, tool="tickets_reply"),
    summary="Add a comment or a note to a ticket's thread",
)
async def create_thread_entry(id: str, body: ThreadEntryCreate, unit: CurrentUnit) -> ThreadEntryOut:
    await store.get(unit, TICKET, id)
    entry = await add_entry(unit, id, EntryKind(body.kind), body.body, body.metadata)
    unit.emit(REPLIED, entry, sequence=entry.version)
    await timeline.append(unit, id, REPLIED.name, detail={"thread_entry_id": entry.id, "kind": entry.kind})
    return entry


@router.get("/{id}/thread_entries", openapi_extra=declares("tickets:read"), summary="A ticket's thread, newest first")
async def list_thread_entries(
    id: str, unit: CurrentUnit, paging: Paging, kind: EntryKind | None = None
) -> Page[ThreadEntryOut]:
    await store.get(unit, TICKET, id)
    checked = [] if kind is None else [ThreadEntryRow.kind == kind]
    return await store.page(
        unit,
        THREAD_ENTRY,
        paging.cursor,
        paging.limit,
        ThreadEntryRow.ticket_id == id,
        checked=checked,
        filters=str(kind),
    )


@router.get("/{id}/thread_entries/{entry_id}", openapi_extra=declares("tickets:read"), summary="Read a thread entry")
async def get_thread_entry(id: str, entry_id: str, unit: CurrentUnit) -> ThreadEntryOut:
    row = await store.get(unit, THREAD_ENTRY, entry_id)
    if row.ticket_id != id:
        raise store.not_found(THREAD_ENTRY)
    return ThreadEntryOut.model_validate(row)
