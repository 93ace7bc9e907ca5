"""Reaching and skipping a milestone, each once and for ever. Open tasks block reaching, unless it is forced with a reason."""

from sqlalchemy import select

from products.works.force import SHOWN, ForceBody, ReasonBody, refuse_while_open, require_reason
from products.works.history import record
from products.works.milestones import MILESTONE, REACHED, SKIPPED, MilestoneOut, MilestoneRow
from products.works.projects import lock_part
from products.works.tasks import IS_OPEN, TaskRow
from spine.kernel import store
from spine.kernel.routes import CurrentUnit, declares, new_router
from spine.kernel.unit_of_work import UnitOfWork

router = new_router("/works/v1/milestones", "milestones")


@router.post(
    "/{id}/reach",
    openapi_extra=declares("works:write", REACHED, tool="works_reach_milestone"),
    summary="Reach a milestone: its phase is complete",
)
async def reach_milestone(id: str, unit: CurrentUnit, body: ForceBody | None = None) -> MilestoneOut:
    options = body or ForceBody()
    require_reason(options)
    row: MilestoneRow = await lock_part(unit, MILESTONE, id)
    store.require_transition(MILESTONE, row, "reached")
    open_tasks = await _open_tasks(unit, row)
    if not options.force:
        refuse_while_open(open_tasks, "task", "open_tasks", sorted(MILESTONE.states["pending"] - {"reached"}))
    before = MilestoneOut.model_validate(row)
    values = {"status": "reached", "reached_at": await unit.now(), "reached_by": unit.caller.actor.model_dump()}
    await store.change(unit, MILESTONE, row, values)
    detail = {"forced": bool(open_tasks), "reason": options.reason}
    out: MilestoneOut = await record(unit, MILESTONE, row.project_id, REACHED, before, row, **detail)
    return out


@router.post("/{id}/skip", openapi_extra=declares("works:write", SKIPPED), summary="Leave a milestone out")
async def skip_milestone(id: str, unit: CurrentUnit, body: ReasonBody | None = None) -> MilestoneOut:
    row: MilestoneRow = await lock_part(unit, MILESTONE, id)
    store.require_transition(MILESTONE, row, "skipped")
    before = MilestoneOut.model_validate(row)
    await store.change(unit, MILESTONE, row, {"status": "skipped"})
    reason = body.reason if body is not None else None
    out: MilestoneOut = await record(unit, MILESTONE, row.project_id, SKIPPED, before, row, reason=reason)
    return out


async def _open_tasks(unit: UnitOfWork, milestone: MilestoneRow) -> list[tuple[str, str]]:
    query = (
        select(TaskRow.id, TaskRow.title)
        .where(TaskRow.workspace_id == unit.workspace_id, TaskRow.project_id == milestone.project_id)
        .where(TaskRow.milestone_id == milestone.id, IS_OPEN)
        .order_by(TaskRow.id)
        .limit(SHOWN + 1)
    )
    return [(id, title) for id, title in await unit.session.execute(query)]
