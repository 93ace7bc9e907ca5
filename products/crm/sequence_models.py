"""Sequences and enrollments: rows, the models that callers see, and their events."""

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field, StringConstraints, model_validator
from sqlalchemy import and_
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, foreign, mapped_column, relationship, remote

from products.crm.references import Reference
from spine.kernel import store
from spine.kernel.errors import Conflict
from spine.kernel.events import EventType
from spine.kernel.resource import Body, Metadata, Name, Out, Resource, ResourceOut, Row, TenantRow
from spine.notifications.message_request import Reference as TemplateReference
from spine.notifications.provider_kinds import Channel
from spine.notifications.template_vars import Vars

MAX_STEPS: Final = 50
MAX_DELAY_S: Final = 366 * 24 * 3600
Outcome = Literal["sent", "delivered", "read", "failed", "cancelled"]
SequenceStatus = Literal["active", "paused"]
EnrollmentStatus = Literal["active", "completed", "stopped"]


class SequenceRow(TenantRow):
    __tablename__ = "sequences"
    name: Mapped[str]
    steps: Mapped[list[Any]] = mapped_column(JSONB)
    status: Mapped[str] = mapped_column(default="active")


class EnrollmentStepRow(Row):
    """What became of one step of an enrollment."""

    __tablename__ = "enrollment_steps"
    workspace_id: Mapped[str] = mapped_column(primary_key=True)
    enrollment_id: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    message_id: Mapped[str | None]
    channel: Mapped[str | None]
    outcome: Mapped[str]
    reason: Mapped[str | None]
    ended_at: Mapped[datetime]


class EnrollmentRow(TenantRow):
    """`step` is next, or its message is under way. `held`: it was due while the sequence was paused."""

    __tablename__ = "enrollments"
    sequence_id: Mapped[str]
    contact_id: Mapped[str]
    step: Mapped[int] = mapped_column(default=0)
    status: Mapped[str] = mapped_column(default="active")
    stop_reason: Mapped[str | None]
    message_id: Mapped[str | None]
    held: Mapped[bool] = mapped_column(default=False)
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]

    constraint_errors = {  # read-only
        "enrollments_one_active": lambda: Conflict(
            "this contact goes through the sequence already", code="already_enrolled", param="contact_id"
        ),
        "enrollments_contact": lambda: store.reference_not_found("contact_id"),
    }
    executed_steps: Mapped[list[EnrollmentStepRow]] = relationship(
        EnrollmentStepRow,
        primaryjoin=lambda: and_(
            EnrollmentRow.workspace_id == foreign(remote(EnrollmentStepRow.workspace_id)),
            EnrollmentRow.id == foreign(remote(EnrollmentStepRow.enrollment_id)),
        ),
        order_by=EnrollmentStepRow.step,
        viewonly=True,
        lazy="selectin",  # one query for all enrollments of a list
    )


class SequenceStep(Body):
    delay_s: Annotated[int, Field(ge=0, le=MAX_DELAY_S)] = Field(
        description="Seconds after the outcome of the step before, or after the enrollment."
    )
    template: TemplateReference = Field(description="A template's slug, for its newest version then, or its id.")
    channels: Annotated[list[Channel], Field(min_length=1, max_length=3)] | None = Field(
        default=None, description="An ordered preference. Without it, the channel policy that applies decides."
    )
    vars: Vars = Field(
        default={}, description="Beside `name` and the contact's own fields, whose place they take where equal."
    )

    @model_validator(mode="after")
    def _each_channel_once(self) -> "SequenceStep":
        if self.channels is not None and len(set(self.channels)) < len(self.channels):
            raise ValueError("a channel stands in channels once")
        return self


class SequenceCreate(Body):
    name: Name
    steps: Annotated[list[SequenceStep], Field(min_length=1, max_length=MAX_STEPS)]
    metadata: Metadata = {}


class EnrollBody(Body):
    contact_id: Reference
    metadata: Metadata = {}


class StopBody(Body):
    reason: Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)] = "manual"


class SequenceStepOut(Out):
    delay_s: int
    template: str
    channels: list[Channel] | None
    vars: dict[str, Any] = {}


class SequenceOut(ResourceOut):
    object: str = "sequence"
    name: str
    steps: list[SequenceStepOut]
    status: SequenceStatus


class ExecutedStep(Out):
    """What became of a step."""

    step: int = Field(description="From 0.")
    message_id: str | None
    channel: str | None
    outcome: Outcome
    reason: str | None
    ended_at: datetime


class EnrollmentOut(ResourceOut):
    object: str = "enrollment"
    sequence_id: str
    contact_id: str
    step: int = Field(description="The step that is next, or whose message is under way; from 0.")
    status: EnrollmentStatus
    stop_reason: str | None = Field(
        description="`replied` or `opted_out` if the contact did; else what the caller who stopped it said."
    )
    message_id: str | None = Field(description="The message of the step that is under way, or was last.")
    executed_steps: list[ExecutedStep]
    started_at: datetime
    ended_at: datetime | None


class StepExecuted(BaseModel):
    """A step of an enrollment, and what became of its message."""

    sequence_id: str
    enrollment_id: str
    contact_id: str
    step: int = Field(description="From 0.")
    channel: str | None = Field(description="The channel that carried it last; null if nothing could be sent.")
    message_id: str | None = Field(description="Null if nothing could be sent; `reason` says why.")
    outcome: Outcome = Field(description="As the message service says; `sent` where no receipt is to come.")
    reason: str | None


CREATED = EventType("sequence.created", SequenceOut, "A sequence was created.")
PAUSED = EventType("sequence.paused", SequenceOut, "A sequence was paused: steps that are due wait.")
RESUMED = EventType("sequence.resumed", SequenceOut, "A paused sequence goes on.")
ENROLLED = EventType("sequence.enrolled", EnrollmentOut, "A contact began a sequence.")
STEP_EXECUTED = EventType(
    "sequence.step_executed", StepExecuted, "The message of a step reached its final outcome, or could not be sent."
)
STOPPED = EventType(
    "enrollment.stopped", EnrollmentOut, "A contact left a sequence early: by a reply, an opt-out or a call."
)
COMPLETED = EventType("enrollment.completed", EnrollmentOut, "A contact went through all steps of a sequence.")
SEQUENCE = Resource(
    noun="sequence",
    row=SequenceRow,
    create=SequenceCreate,
    update=None,
    out=SequenceOut,
    scope="crm",
    events=(CREATED, PAUSED, RESUMED, ENROLLED, STEP_EXECUTED),
    states={"active": frozenset({"paused"}), "paused": frozenset({"active"})},
)
ENROLLMENT = Resource(
    noun="enrollment",
    row=EnrollmentRow,
    create=None,
    update=None,
    out=EnrollmentOut,
    scope="crm",
    events=(STOPPED, COMPLETED),
    states={"active": frozenset({"completed", "stopped"}), "completed": frozenset(), "stopped": frozenset()},
)
