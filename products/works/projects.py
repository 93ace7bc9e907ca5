"""Projects: work that is delivered for a won deal or directly, through milestones and tasks."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Mapped, mapped_column

from policies.work_states import PROJECT_STATES
from products.crm.list_filters import filtered_page
from products.crm.references import Reference
from products.works.history import record
from products.works.templates import Slug
from spine.kernel import ids, store, timeline
from spine.kernel.crud import crud_router
from spine.kernel.errors import Conflict
from spine.kernel.events import EventType
from spine.kernel.resource import Body, Metadata, Name, PatchBody, Resource, ResourceOut, TenantRow
from spine.kernel.routes import CurrentUnit, IfMatch, Paging, declares, version_of
from spine.kernel.store import Page
from spine.kernel.timeline import Change, TimelineEntry
from spine.kernel.unit_of_work import UnitOfWork

ProjectStatus = Literal["active", "on_hold", "closed"]


class ProjectRow(TenantRow):
    __tablename__ = "projects"
    name: Mapped[str]
    owner_id: Mapped[str]
    deal_id: Mapped[str | None]
    contact_id: Mapped[str | None]
    template: Mapped[str | None]
    template_version: Mapped[int | None]
    origin: Mapped[str]
    status: Mapped[str] = mapped_column(default="active")
    closed_at: Mapped[datetime | None]
    close_reason: Mapped[str | None]

    constraint_errors = {  # read-only
        "projects_owner": lambda: store.reference_not_found("owner_id"),
        "projects_deal": lambda: store.reference_not_found("deal_id"),
        "projects_contact": lambda: store.reference_not_found("contact_id"),
    }


class ProjectCreate(Body):
    name: Name | None = Field(default=None, description="Without it, the deal's name.")
    owner_id: Reference | None = Field(default=None, description="The user in charge. Without it, the deal's owner.")
    deal_id: Reference | None = Field(default=None, description="The won deal that the project delivers.")
    contact_id: Reference | None = Field(default=None, description="Without it, the deal's contact.")
    template: Slug | None = Field(
        default=None, description="The slug of a template: its newest version gives milestones and tasks."
    )
    metadata: Metadata = {}


class ProjectUpdate(PatchBody):
    name: Name = ""
    owner_id: Reference = ""
    contact_id: Reference | None = None
    metadata: Metadata = {}


class ProjectOut(ResourceOut):
    object: str = "project"
    name: str
    owner_id: str
    deal_id: str | None
    contact_id: str | None
    template: str | None
    template_version: int | None = Field(description="The version of the template that made milestones and tasks.")
    origin: Literal["won_deal", "direct"]
    status: ProjectStatus
    closed_at: datetime | None
    close_reason: str | None


class ProjectUpdated(ProjectOut):
    """A project and what changed on it."""

    changes: list[Change]


class ProjectClosed(ProjectOut):
    """A closed project."""

    forced: bool = Field(description="True if milestones were pending.")


CREATED = EventType("project.created", ProjectOut, "A project was opened, from a won deal or directly.")
UPDATED = EventType(
    "project.updated", ProjectUpdated, "A project changed, was put on hold or resumed; `changes` says which fields."
)
CLOSED = EventType("project.closed", ProjectClosed, "A project was delivered and closed; its timeline tells the story.")
PROJECT = Resource(
    noun="project",
    row=ProjectRow,
    create=ProjectCreate,
    update=ProjectUpdate,
    out=ProjectOut,
    scope="works",
    events=(CREATED, UPDATED, CLOSED),
    states=PROJECT_STATES,
)

router = crud_router(PROJECT, "works", "get")

OfProject = Annotated[Reference, Field(description="The project that it belongs to.")]


def _is_closed() -> Conflict:
    return Conflict("the project is closed: nothing of it changes any more", code="project_closed", allowed=[])


async def keep_open(unit: UnitOfWork, project_id: str, *, alone: bool = False) -> None:
    """Lock a project that a body refers to, so that it is not closed before the commit; `alone`: against others like this too.

    Raises Unprocessable `reference_not_found`, Conflict `project_closed`.
    """
    query = select(ProjectRow.status).where(ProjectRow.workspace_id == unit.workspace_id, ProjectRow.id == project_id)
    status = None
    if ids.is_id(project_id, PROJECT.prefix):
        status = await unit.session.scalar(query.with_for_update(read=not alone, key_share=alone))
    if status is None:
        raise store.reference_not_found("project_id")
    if status == "closed":
        raise _is_closed()


async def lock_part(unit: UnitOfWork, part: Resource, id: str) -> Any:
    """Return a milestone or task, locked, after its project is locked against being closed.

    All that changes parts of projects locks in this order. Raises NotFound, Conflict `project_closed`.
    """
    row: Any = part.row
    of_part = select(row.project_id).where(row.workspace_id == unit.workspace_id, row.id == id).scalar_subquery()
    query = select(ProjectRow.status).where(ProjectRow.workspace_id == unit.workspace_id, ProjectRow.id == of_part)
    status = None
    if ids.is_id(id, part.prefix):
        status = await unit.session.scalar(query.with_for_update(read=True))
    if status is None:
        raise store.not_found(part)
    if status == "closed":
        raise _is_closed()
    return await store.get(unit, part, id, lock=True)


async def lock_open_project(unit: UnitOfWork, id: str) -> ProjectRow:
    """Return a project, locked, that is not closed. Raises NotFound, Conflict `project_closed`."""
    row: ProjectRow = await store.get(unit, PROJECT, id, lock=True)
    if row.status == "closed":
        raise _is_closed()
    return row


@router.get("", openapi_extra=declares("works:read"), summary="List projects, newest first")
async def list_projects(
    unit: CurrentUnit,
    paging: Paging,
    status: ProjectStatus | None = None,
    owner_id: Reference | None = None,
    contact_id: Reference | None = None,
    deal_id: Reference | None = None,
) -> Page[ProjectOut]:
    return await filtered_page(
        unit,
        PROJECT,
        paging,
        (ProjectRow.deal_id, deal_id),
        (ProjectRow.contact_id, contact_id),
        (ProjectRow.owner_id, owner_id),
        (ProjectRow.status, status),
    )


@router.patch("/{id}", openapi_extra=declares("works:write", UPDATED), summary="Change a project")
async def update_project(id: str, body: ProjectUpdate, unit: CurrentUnit, if_match: IfMatch = None) -> ProjectOut:
    row = await lock_open_project(unit, id)
    before = ProjectOut.model_validate(row)
    if await store.change(unit, PROJECT, row, store.columns(body), version_of(if_match)):
        out: ProjectOut = await record(unit, PROJECT, row.id, UPDATED, before, row)
        return out
    return before


@router.get("/{id}/timeline", openapi_extra=declares("works:read"), summary="A project's timeline, oldest first")
async def get_project_timeline(id: str, unit: CurrentUnit, paging: Paging) -> Page[TimelineEntry]:
    await store.get(unit, PROJECT, id)
    return await timeline.page(unit, id, paging)
