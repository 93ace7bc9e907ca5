"""Tasks: what is to be done in a project, by whom and by when. A task without an assignee stands in nobody's queue."""

from datetime import datetime
from typing import Any, Final, Literal

from pydantic import Field
from sqlalchemy import literal_column
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from policies.work_states import OPEN_TASK, TASK_STATES
from products.crm.references import Reference
from products.works.projects import OfProject
from products.works.templates import Title
from spine.kernel import store
from spine.kernel.events import Actor, EventType
from spine.kernel.resource import Body, Metadata, PatchBody, Resource, ResourceOut, TenantRow, Timestamp
from spine.kernel.timeline import Change

TaskStatus = Literal["open", "in_progress", "done", "cancelled"]


class TaskRow(TenantRow):
    __tablename__ = "tasks"
    project_id: Mapped[str]
    milestone_id: Mapped[str | None]
    title: Mapped[str]
    assignee_id: Mapped[str | None]
    due_at: Mapped[datetime | None]
    overdue_at: Mapped[datetime | None]
    status: Mapped[str] = mapped_column(default="open")
    completed_by: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    completed_at: Mapped[datetime | None]

    constraint_errors = {  # read-only
        "tasks_project": lambda: store.reference_not_found("project_id"),
        "tasks_milestone": lambda: store.reference_not_found("milestone_id"),
        "tasks_assignee": lambda: store.reference_not_found("assignee_id"),
    }


# Literals: the planner proves with them that the partial index of queues holds every row.
IS_OPEN: Final = TaskRow.status.in_([literal_column(f"'{state}'") for state in sorted(OPEN_TASK)])


class TaskCreate(Body):
    project_id: OfProject
    milestone_id: Reference | None = Field(default=None, description="A milestone of the same project.")
    title: Title
    assignee_id: Reference | None = Field(default=None, description="The user whose queue it lands in.")
    due_at: Timestamp | None = None
    metadata: Metadata = {}


class TaskUpdate(PatchBody):
    milestone_id: Reference | None = None
    title: Title = ""
    due_at: Timestamp | None = Field(default=None, description="Another due time can become overdue anew.")
    status: Literal["in_progress"] = Field(default="in_progress", description="Starts an open task.")
    metadata: Metadata = {}


class TaskOut(ResourceOut):
    object: str = "task"
    project_id: str
    milestone_id: str | None
    title: str
    assignee_id: str | None
    due_at: datetime | None
    overdue_at: datetime | None = Field(description="When its present due time passed while it was open.")
    status: TaskStatus
    completed_by: Actor | None
    completed_at: datetime | None


class TaskUpdated(TaskOut):
    """A task and what changed on it."""

    changes: list[Change]


class TaskAssigned(TaskOut):
    """A task that landed in somebody's queue."""

    from_: str | None = Field(alias="from", description="The user who had it before.")
    to: str = Field(description="The user who has it now.")


class TaskReopened(TaskOut):
    """A task that is to be done after all."""

    reason: str | None


class TaskCancelled(TaskOut):
    """A task that is not done any more."""

    reason: str | None


CREATED = EventType("task.created", TaskOut, "A task was added to a project.")
UPDATED = EventType(
    "task.updated", TaskUpdated, "A task changed, was started or taken off a queue; `changes` says how."
)
ASSIGNED = EventType(
    "task.assigned", TaskAssigned, "A task landed in somebody's queue; it says whose, and whose before."
)
COMPLETED = EventType("task.completed", TaskOut, "A task is done; it says by whom and when.")
OVERDUE = EventType("task.overdue", TaskOut, "An open task is past its due time; emitted once for each due time.")
REOPENED = EventType("task.reopened", TaskReopened, "A task that was done is open again.")
CANCELLED = EventType("task.cancelled", TaskCancelled, "A task is not done any more.")
TASK = Resource(
    noun="task",
    row=TaskRow,
    create=TaskCreate,
    update=TaskUpdate,
    out=TaskOut,
    scope="works",
    events=(CREATED, UPDATED, ASSIGNED, COMPLETED, OVERDUE, REOPENED, CANCELLED),
    states=TASK_STATES,
)
