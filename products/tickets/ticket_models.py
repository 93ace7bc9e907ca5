"""Tickets as data: the row, the bodies of calls, what callers see, the states and the events (products.md 3.3)."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints
from sqlalchemy import Computed, DateTime, Interval, SmallInteger
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from policies.sla import SlaClock, due_at, remaining
from products.tickets.evidence_models import EvidenceCreate, EvidenceOut
from spine.kernel import store
from spine.kernel.events import Actor, EventType
from spine.kernel.resource import Body, Metadata, PatchBody, Resource, ResourceOut, TenantRow
from spine.kernel.timeline import Change

Reference = Annotated[str, StringConstraints(max_length=64)]
Subject = Annotated[str, StringConstraints(min_length=1, max_length=300, strip_whitespace=True)]
Topic = Annotated[str, StringConstraints(min_length=1, max_length=64, strip_whitespace=True)]
EntryText = Annotated[str, StringConstraints(min_length=1, max_length=10_000, strip_whitespace=True)]
Reason = Annotated[str, StringConstraints(min_length=1, max_length=1000, strip_whitespace=True)]

MAX_EVIDENCE_AT_ONCE = 20


class TicketStatus(StrEnum):
    """`new` until somebody works on it; `pending` while it waits for somebody else; `resolved` is its end (X9)."""

    NEW = "new"
    OPEN = "open"
    PENDING = "pending"
    RESOLVED = "resolved"


class Priority(StrEnum):
    """How soon a ticket is taken from the queue."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
    URGENT = "urgent"


class Source(StrEnum):
    """The door that a ticket came through (T-05)."""

    VOICE = "voice"
    CHAT = "chat"
    FORM = "form"
    API = "api"
    EMAIL = "email"


TRANSITIONS: Mapping[str, frozenset[str]] = {
    TicketStatus.NEW: frozenset({TicketStatus.OPEN, TicketStatus.PENDING, TicketStatus.RESOLVED}),
    TicketStatus.OPEN: frozenset({TicketStatus.PENDING, TicketStatus.RESOLVED}),
    TicketStatus.PENDING: frozenset({TicketStatus.OPEN, TicketStatus.RESOLVED}),
    TicketStatus.RESOLVED: frozenset({TicketStatus.OPEN}),
}
"""The allowed transitions (T-03). To `resolved` only through /resolve, and back to `open` only through /reopen."""


class TicketRow(TenantRow):
    __tablename__ = "tickets"
    contact_id: Mapped[str]
    subject: Mapped[str]
    topic: Mapped[str | None]
    priority: Mapped[str]
    priority_rank: Mapped[int | None] = mapped_column(SmallInteger, Computed("", persisted=True))
    source: Mapped[str]
    call_id: Mapped[str | None]
    form_id: Mapped[str | None]
    status: Mapped[str] = mapped_column(default=TicketStatus.NEW)
    owner_id: Mapped[str | None]
    resolution_note: Mapped[str | None]
    resolved_at: Mapped[datetime | None]
    reopen_count: Mapped[int] = mapped_column(default=0)
    reopened_at: Mapped[list[datetime]] = mapped_column(ARRAY(DateTime(timezone=True)), default=list)
    sla_threshold_s: Mapped[int | None]
    sla_elapsed: Mapped[timedelta] = mapped_column(Interval, default=timedelta())
    sla_running_since: Mapped[datetime | None]
    sla_breached_at: Mapped[datetime | None]

    constraint_errors = {  # read-only
        "tickets_contact": lambda: store.reference_not_found("contact_id"),
        "tickets_owner": lambda: store.reference_not_found("owner_id"),
        "tickets_call": lambda: store.reference_not_found("call_id"),
        "tickets_form": lambda: store.reference_not_found("form_id"),
    }

    @property
    def sla_clock(self) -> SlaClock:
        """The clock of the present cycle."""
        return SlaClock(self.sla_elapsed, self.sla_running_since)

    @property
    def is_queued(self) -> bool:
        """True if the ticket waits for an owner."""
        return self.owner_id is None and self.status != TicketStatus.RESOLVED

    @property
    def sla(self) -> "SlaOut":
        """What callers see of the service level."""
        left = remaining(self.sla_clock, self.sla_threshold_s)
        return SlaOut(
            due_at=due_at(self.sla_clock, self.sla_threshold_s),
            breached_at=self.sla_breached_at,
            threshold_s=self.sla_threshold_s,
            remaining_s=None if left is None else left.total_seconds(),
        )


class TicketCreate(Body):
    contact_id: Reference
    subject: Subject
    topic: Topic | None = None
    priority: Priority = Priority.NORMAL
    source: Source
    call_id: Annotated[Reference | None, Field(description="The call that it came from.")] = None
    body: Annotated[
        EntryText | None, Field(description="What the contact says. It becomes the thread's first entry.")
    ] = None
    evidence: Annotated[list[EvidenceCreate], Field(max_length=MAX_EVIDENCE_AT_ONCE)] = []
    owner_id: Annotated[Reference | None, Field(description="Null: as the routing rules say.")] = None
    metadata: Metadata = {}


class TicketUpdate(PatchBody):
    subject: Subject = ""
    topic: Topic | None = None
    priority: Priority = Priority.NORMAL
    owner_id: Annotated[Reference | None, Field(description="Null puts the ticket back into the queue.")] = None
    metadata: Metadata = {}


class SlaOut(BaseModel):
    """The service level of the present cycle, which began when the ticket was created or last reopened."""

    due_at: datetime | None = Field(description="Null while the clock stands still, or if no policy applies.")
    breached_at: datetime | None
    threshold_s: int | None = Field(description="The threshold of the policy that applies.")
    remaining_s: float | None = Field(description="What is left of the threshold while the clock stands still.")


class TicketOut(ResourceOut):
    object: str = "ticket"
    contact_id: str
    subject: str
    topic: str | None
    priority: Priority
    source: Source
    call_id: str | None
    form_id: str | None
    status: TicketStatus
    owner_id: str | None
    queue_position: int | None = Field(
        default=None,
        description="1 for the ticket that is to be taken next; null with an owner or resolved. Positions beyond 1000 "
        "are shown as 1001.",
    )
    resolution_note: str | None
    resolved_at: datetime | None
    reopen_count: int
    reopened_at: list[datetime]
    sla: SlaOut


class TicketCreated(TicketOut):
    """A new ticket with its evidence."""

    body: str | None
    evidence: list[EvidenceOut]


class TicketUpdated(TicketOut):
    """A ticket and what changed on it."""

    changes: list[Change]


class TicketAssigned(TicketOut):
    """A ticket with its new owner."""

    previous_owner_id: str | None


class TicketStatusChanged(TicketOut):
    """A ticket that went from one status to another, who did it and why (T-07)."""

    from_: TicketStatus = Field(alias="from")
    to: TicketStatus
    actor: Actor
    reason: str


class TicketResolved(TicketOut):
    """A resolved ticket, and the message that tells the contact (T-08)."""

    message_id: str | None = Field(description="Null if no message could be sent; the ticket's timeline says why.")


class TicketReopened(TicketOut):
    """A ticket that was reopened, and why (T-09)."""

    reason: str


CREATED = EventType("ticket.created", TicketCreated, "A ticket was created, from any door, with its evidence.")
UPDATED = EventType(
    "ticket.updated", TicketUpdated, "A ticket changed; `changes` says which fields, from what to what."
)
ASSIGNED = EventType("ticket.assigned", TicketAssigned, "A ticket has an owner, or another one, and left the queue.")
STATUS_CHANGED = EventType("ticket.status_changed", TicketStatusChanged, "A ticket went from one status to another.")
RESOLVED = EventType("ticket.resolved", TicketResolved, "A ticket was resolved with a note, and its contact notified.")
REOPENED = EventType("ticket.reopened", TicketReopened, "A resolved ticket was opened again.")
SLA_BREACHED = EventType("ticket.sla_breached", TicketOut, "A ticket aged beyond the threshold of its SLA policy.")
TICKET = Resource(
    noun="ticket",
    row=TicketRow,
    create=TicketCreate,
    update=TicketUpdate,
    out=TicketOut,
    scope="tickets",
    events=(CREATED, UPDATED, ASSIGNED, STATUS_CHANGED, RESOLVED, REOPENED, SLA_BREACHED),
    states=TRANSITIONS,
)
