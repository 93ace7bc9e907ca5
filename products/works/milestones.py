"""Milestones: the phases of a project. A milestone with billing drafts an invoice when it is reached."""

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import Field
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from policies.work_states import MILESTONE_STATES
from products.crm.list_filters import filtered_page
from products.crm.references import Reference
from products.works.history import entry, record
from products.works.projects import OfProject, keep_open, lock_part
from products.works.templates import Billing, BillingOut
from spine.kernel import store, timeline
from spine.kernel.crud import crud_router
from spine.kernel.errors import Conflict, IllegalTransition
from spine.kernel.events import Actor, EventType
from spine.kernel.resource import Body, Metadata, Name, PatchBody, Resource, ResourceOut, TenantRow, Timestamp
from spine.kernel.routes import CurrentUnit, IfMatch, Paging, declares, version_of
from spine.kernel.store import Page
from spine.kernel.timeline import Change

MAX_PER_PROJECT: Final = 200
MilestoneStatus = Literal["pending", "reached", "skipped"]
Position = Annotated[int, Field(ge=0, le=1_000_000, description="Milestones stand in this order.")]


class MilestoneRow(TenantRow):
    __tablename__ = "milestones"
    project_id: Mapped[str]
    name: Mapped[str]
    position: Mapped[int]
    due_at: Mapped[datetime | None]
    billing: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    status: Mapped[str] = mapped_column(default="pending")
    reached_by: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    reached_at: Mapped[datetime | None]


class MilestoneCreate(Body):
    project_id: OfProject
    name: Name
    position: Position
    due_at: Timestamp | None = None
    billing: Billing | None = None
    metadata: Metadata = {}


class MilestoneUpdate(PatchBody):
    name: Name = ""
    position: Position = 0
    due_at: Timestamp | None = None
    billing: Billing | None = None
    metadata: Metadata = {}


class MilestoneOut(ResourceOut):
    object: str = "milestone"
    project_id: str
    name: str
    position: int
    due_at: datetime | None
    billing: BillingOut | None
    status: MilestoneStatus
    reached_by: Actor | None
    reached_at: datetime | None


class MilestoneUpdated(MilestoneOut):
    """A milestone and what changed on it."""

    changes: list[Change]


class MilestoneReached(MilestoneOut):
    """A reached milestone."""

    forced: bool = Field(description="True if tasks of it were open.")
    reason: str | None


class MilestoneSkipped(MilestoneOut):
    """A skipped milestone."""

    reason: str | None


CREATED = EventType("milestone.created", MilestoneOut, "A milestone was added to a project.")
UPDATED = EventType("milestone.updated", MilestoneUpdated, "A pending milestone changed; `changes` says which fields.")
REACHED = EventType(
    "milestone.reached", MilestoneReached, "A phase is complete; it is emitted once per milestone, for ever."
)
SKIPPED = EventType("milestone.skipped", MilestoneSkipped, "A milestone was left out.")
MILESTONE = Resource(
    noun="milestone",
    row=MilestoneRow,
    create=MilestoneCreate,
    update=MilestoneUpdate,
    out=MilestoneOut,
    scope="works",
    events=(CREATED, UPDATED, REACHED, SKIPPED),
    states=MILESTONE_STATES,
)

router = crud_router(MILESTONE, "works", "get")


def _columns(body: MilestoneCreate | MilestoneUpdate) -> dict[str, Any]:
    values = store.columns(body)
    if values.get("billing") is not None and body.billing is not None:
        values["billing"] = body.billing.model_dump()  # whole, also where the caller left something out
    return values


@router.post(
    "", status_code=201, openapi_extra=declares("works:write", CREATED), summary="Add a milestone to a project"
)
async def create_milestone(body: MilestoneCreate, unit: CurrentUnit) -> MilestoneOut:
    await keep_open(unit, body.project_id, alone=True)
    query = select(func.count()).where(
        MilestoneRow.workspace_id == unit.workspace_id, MilestoneRow.project_id == body.project_id
    )
    if (await unit.session.scalar(query) or 0) >= MAX_PER_PROJECT:
        raise Conflict(f"a project may have {MAX_PER_PROJECT} milestones", code="too_many_milestones")
    row = await store.create(unit, MILESTONE, **_columns(body))
    out: MilestoneOut = await store.emit_event(unit, MILESTONE, row, "created")
    await timeline.append_all(unit, row.project_id, [entry(CREATED.name, None, out)])
    return out


@router.get("", openapi_extra=declares("works:read"), summary="List milestones, newest first")
async def list_milestones(
    unit: CurrentUnit, paging: Paging, project_id: Reference | None = None, status: MilestoneStatus | None = None
) -> Page[MilestoneOut]:
    of_project = (MilestoneRow.project_id, project_id)
    return await filtered_page(unit, MILESTONE, paging, of_project, checked=[(MilestoneRow.status, status)])


@router.patch("/{id}", openapi_extra=declares("works:write", UPDATED), summary="Change a pending milestone")
async def update_milestone(id: str, body: MilestoneUpdate, unit: CurrentUnit, if_match: IfMatch = None) -> MilestoneOut:
    row: MilestoneRow = await lock_part(unit, MILESTONE, id)
    if row.status != "pending":
        raise IllegalTransition(f"it is {row.status}; only a pending milestone changes", allowed=[])
    before = MilestoneOut.model_validate(row)
    if await store.change(unit, MILESTONE, row, _columns(body), version_of(if_match)):
        out: MilestoneOut = await record(unit, MILESTONE, row.project_id, UPDATED, before, row)
        return out
    return before
