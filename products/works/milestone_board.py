"""The board of a project: all its milestones with the numbers of their tasks, in one call and one query (W-14, P-27)."""

from pydantic import BaseModel, Field
from sqlalchemy import func, select, true

from policies.work_states import TASK_STATES
from products.works.milestones import MilestoneOut, MilestoneRow
from products.works.projects import PROJECT, ProjectRow, ProjectStatus
from products.works.tasks import IS_OPEN, TaskRow
from spine.kernel import ids, store
from spine.kernel.routes import CurrentUnit, declares, new_router


class TaskCounts(BaseModel):
    """How many tasks are in each state."""

    open: int
    in_progress: int
    done: int
    cancelled: int
    overdue: int = Field(description="Those of `open` and `in_progress` that are past their due time.")


class BoardMilestone(MilestoneOut):
    """A milestone and how far its tasks are."""

    tasks: TaskCounts


class MilestoneBoard(BaseModel):
    """A project's milestones in their order. It is not paged: a project has 200 at most, and positions change."""

    object: str = "milestone_board"
    project_id: str
    status: ProjectStatus
    data: list[BoardMilestone]


router = new_router("/works/v1/projects", "projects")


@router.get(
    "/{id}/milestones",
    openapi_extra=declares("works:read"),
    summary="A project's milestones, with counts of their tasks",
)
async def list_project_milestones(id: str, unit: CurrentUnit) -> MilestoneBoard:
    is_overdue = IS_OPEN & TaskRow.overdue_at.is_not(None)
    counted = {state: TaskRow.status == state for state in TASK_STATES} | {"overdue": is_overdue}
    counts = (
        select(*(func.count().filter(condition).label(name) for name, condition in counted.items()))
        .where(TaskRow.workspace_id == unit.workspace_id, TaskRow.project_id == id)
        .where(TaskRow.milestone_id == MilestoneRow.id)
        .lateral("counts")
    )
    of_project = (MilestoneRow.workspace_id == ProjectRow.workspace_id) & (MilestoneRow.project_id == ProjectRow.id)
    query = (
        select(ProjectRow.status, MilestoneRow, counts)
        .select_from(ProjectRow)
        .outerjoin(MilestoneRow, of_project)
        .outerjoin(counts, true())
        .where(ProjectRow.workspace_id == unit.workspace_id, ProjectRow.id == id)
        .order_by(MilestoneRow.position, MilestoneRow.id)
    )
    rows = (await unit.session.execute(query)).all() if ids.is_id(id, PROJECT.prefix) else []
    if not rows:
        raise store.not_found(PROJECT)
    milestones = [
        BoardMilestone(
            **MilestoneOut.model_validate(row).model_dump(),
            tasks=TaskCounts(**dict(zip(counted, numbers, strict=True))),
        )
        for _, row, *numbers in rows
        if row is not None
    ]
    return MilestoneBoard(project_id=id, status=rows[0].status, data=milestones)
