"""Holding, resuming and closing a project. Closing needs every milestone reached or skipped, or force and a reason."""

from sqlalchemy import select

from products.works.force import SHOWN, ForceBody, refuse_while_open, require_reason
from products.works.history import record
from products.works.milestones import MilestoneRow
from products.works.open_tasks import cancel_open_tasks
from products.works.projects import CLOSED, PROJECT, UPDATED, ProjectOut, ProjectRow
from products.works.tasks import CANCELLED as TASK_CANCELLED
from spine.kernel import store
from spine.kernel.routes import CurrentUnit, declares, new_router
from spine.kernel.unit_of_work import UnitOfWork

router = new_router("/works/v1/projects", "projects")


async def _move(unit: UnitOfWork, id: str, to: str) -> ProjectOut:
    row: ProjectRow = await store.get(unit, PROJECT, id, lock=True)
    store.require_transition(PROJECT, row, to)
    before = ProjectOut.model_validate(row)
    await store.change(unit, PROJECT, row, {"status": to})
    out: ProjectOut = await record(unit, PROJECT, id, UPDATED, before, row)
    return out


@router.post("/{id}/hold", openapi_extra=declares("works:write", UPDATED), summary="Put a project on hold")
async def hold_project(id: str, unit: CurrentUnit) -> ProjectOut:
    return await _move(unit, id, "on_hold")


@router.post("/{id}/resume", openapi_extra=declares("works:write", UPDATED), summary="Resume a project on hold")
async def resume_project(id: str, unit: CurrentUnit) -> ProjectOut:
    return await _move(unit, id, "active")


@router.post(
    "/{id}/close",
    openapi_extra=declares("works:write", CLOSED, TASK_CANCELLED),
    summary="Close a project; tasks that are still open are cancelled",
)
async def close_project(id: str, unit: CurrentUnit, body: ForceBody | None = None) -> ProjectOut:
    options = body or ForceBody()
    require_reason(options)
    row: ProjectRow = await store.get(unit, PROJECT, id, lock=True)
    store.require_transition(PROJECT, row, "closed")
    pending = await _pending_milestones(unit, id)
    if not options.force:
        refuse_while_open(pending, "milestone", "open_milestones", sorted(PROJECT.states["active"] - {"closed"}))
    before = ProjectOut.model_validate(row)
    await cancel_open_tasks(unit, id)
    values = {"status": "closed", "closed_at": await unit.now(), "close_reason": options.reason}
    await store.change(unit, PROJECT, row, values)
    out: ProjectOut = await record(unit, PROJECT, id, CLOSED, before, row, forced=bool(pending))
    return out


async def _pending_milestones(unit: UnitOfWork, project_id: str) -> list[tuple[str, str]]:
    query = (
        select(MilestoneRow.id, MilestoneRow.name)
        .where(
            MilestoneRow.workspace_id == unit.workspace_id,
            MilestoneRow.project_id == project_id,
            MilestoneRow.status == "pending",
        )
        .order_by(MilestoneRow.position, MilestoneRow.id)
        .limit(SHOWN + 1)
    )
    return [(id, name) for id, name in await unit.session.execute(query)]
