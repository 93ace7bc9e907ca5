"""Templates of projects: immutable versions per slug, with the milestones and tasks that a new project starts with.

Messages have templates too. Paths, ids and events keep the contract's words: `/works/v1/templates`, `tpl_`, `template.created`;
the noun of the code is `project_template`.
"""

from typing import Annotated, Any, Final

from pydantic import Field, StringConstraints
from sqlalchemy import select, text
from sqlalchemy.orm import Mapped

from spine.kernel import store
from spine.kernel.errors import Unprocessable
from spine.kernel.events import EventType
from spine.kernel.money import AmountMinor, Currency
from spine.kernel.resource import Body, Metadata, Name, Out, Resource, ResourceOut, TenantRow
from spine.kernel.routes import CurrentUnit, Paging, declares, new_router
from spine.kernel.store import Page
from spine.kernel.unit_of_work import UnitOfWork

MAX_MILESTONES: Final = 50
MAX_TASKS: Final = 200
"""Milestones and tasks of one template: a project is made with all of them in one transaction."""
_NEXT_VERSION: Final = text(
    "INSERT INTO spine.project_template_slugs AS s (workspace_id, slug, newest) VALUES (:ws, :slug, 1) "
    "ON CONFLICT (workspace_id, slug) DO UPDATE SET newest = s.newest + 1 RETURNING newest"
)

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
Title = Annotated[str, StringConstraints(min_length=1, max_length=500, strip_whitespace=True)]
OffsetDays = Annotated[int, Field(ge=0, le=3650, description="Due so many days after the project is opened.")]


class Billing(Body):
    """What reaching a milestone is worth: an invoice is drafted over it."""

    amount_minor: AmountMinor
    currency: Currency
    description: Annotated[str, StringConstraints(max_length=500)] | None = None


class TemplateMilestone(Body):
    name: Name
    offset_days: OffsetDays | None = None
    billing: Billing | None = None


class TemplateTask(Body):
    title: Title
    milestone: Name | None = Field(default=None, description="The name of a milestone of this template.")
    offset_days: OffsetDays | None = None


class ProjectTemplateRow(TenantRow):
    __tablename__ = "project_templates"
    slug: Mapped[str]
    milestones: Mapped[list[Any]]
    tasks: Mapped[list[Any]]


class ProjectTemplateCreate(Body):
    slug: Slug
    milestones: Annotated[list[TemplateMilestone], Field(max_length=MAX_MILESTONES)] = []
    tasks: Annotated[list[TemplateTask], Field(max_length=MAX_TASKS)] = []
    metadata: Metadata = {}


class BillingOut(Out):
    amount_minor: int
    currency: str
    description: str | None = None


class TemplateMilestoneOut(Out):
    name: str
    offset_days: int | None
    billing: BillingOut | None


class TemplateTaskOut(Out):
    title: str
    milestone: str | None
    offset_days: int | None


class ProjectTemplateOut(ResourceOut):
    object: str = "template"
    slug: str
    version: int = Field(description="The version of this slug. A version never changes.")
    milestones: list[TemplateMilestoneOut]
    tasks: list[TemplateTaskOut]


CREATED = EventType("template.created", ProjectTemplateOut, "A version of a template of projects was made.")
PROJECT_TEMPLATE = Resource(
    noun="project_template",
    row=ProjectTemplateRow,
    create=ProjectTemplateCreate,
    update=None,
    out=ProjectTemplateOut,
    scope="works",
    events=(CREATED,),
)

router = new_router("/works/v1/templates", "project_templates", PROJECT_TEMPLATE)


async def newest_template(unit: UnitOfWork, slug: str) -> ProjectTemplateRow:
    """Return the newest version of a template. Raises Unprocessable `reference_not_found`."""
    query = (
        select(ProjectTemplateRow)
        .where(ProjectTemplateRow.workspace_id == unit.workspace_id, ProjectTemplateRow.slug == slug)
        .order_by(ProjectTemplateRow.version.desc())
        .limit(1)
    )
    row: ProjectTemplateRow | None = await unit.session.scalar(query)
    if row is None:
        raise store.reference_not_found("template")
    return row


def _check_names(body: ProjectTemplateCreate) -> None:
    """Raise Unprocessable for a milestone's name that stands twice, or a task's milestone that does not stand there."""
    names: set[str] = set()
    for number, milestone in enumerate(body.milestones):
        if milestone.name in names:
            raise Unprocessable(
                f"two milestones are named {milestone.name!r}; give each a name of its own",
                code="duplicate_name",
                param=f"milestones.{number}.name",
            )
        names.add(milestone.name)
    for number, task in enumerate(body.tasks):
        if task.milestone is not None and task.milestone not in names:
            raise Unprocessable(
                f"no milestone of this template is named {task.milestone!r}",
                code="reference_not_found",
                param=f"tasks.{number}.milestone",
            )


@router.post(
    "", status_code=201, openapi_extra=declares("works:write", CREATED), summary="Make a version of a project template"
)
async def create_project_template(body: ProjectTemplateCreate, unit: CurrentUnit) -> ProjectTemplateOut:
    _check_names(body)
    values = store.columns(body)
    values |= {
        "milestones": [milestone.model_dump() for milestone in body.milestones],
        "tasks": [task.model_dump() for task in body.tasks],
    }
    version = await unit.session.scalar(_NEXT_VERSION, {"ws": unit.workspace_id, "slug": body.slug})
    row = await store.create(unit, PROJECT_TEMPLATE, version=version, **values)
    out = ProjectTemplateOut.model_validate(row)
    unit.emit(CREATED, out, sequence=row.version)
    return out


@router.get("", openapi_extra=declares("works:read"), summary="List versions of project templates, newest first")
async def list_project_templates(
    unit: CurrentUnit, paging: Paging, slug: Slug | None = None
) -> Page[ProjectTemplateOut]:
    conditions = [ProjectTemplateRow.slug == slug] if slug is not None else []
    return await store.page(unit, PROJECT_TEMPLATE, paging.cursor, paging.limit, *conditions, filters=slug or "")


@router.get("/{id}", openapi_extra=declares("works:read"), summary="Read a version of a project template")
async def get_project_template(id: str, unit: CurrentUnit) -> ProjectTemplateOut:
    return ProjectTemplateOut.model_validate(await store.get(unit, PROJECT_TEMPLATE, id))
