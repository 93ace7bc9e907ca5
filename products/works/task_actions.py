"""The moves of a task: assigning, completing, reopening and cancelling it."""

from typing import Any

from pydantic import Field

from policies.work_states import OPEN_TASK
from products.crm.references import Reference
from products.works.force import ReasonBody
from products.works.history import record
from products.works.overdue import follow_due_time
from products.works.projects import lock_part
from products.works.tasks import ASSIGNED, CANCELLED, COMPLETED, REOPENED, TASK, UPDATED, TaskOut, TaskRow
from spine.kernel import store
from spine.kernel.errors import Conflict, IllegalTransition
from spine.kernel.events import EventType
from spine.kernel.resource import Body
from spine.kernel.routes import CurrentUnit, declares, new_router
from spine.kernel.unit_of_work import UnitOfWork


class AssignBody(Body):
    assignee_id: Reference | None = Field(description="The user whose queue it goes to; null takes it off its queue.")


router = new_router("/works/v1/tasks", "tasks")


@router.post(
    "/{id}/assign", openapi_extra=declares("works:write", ASSIGNED, UPDATED), summary="Assign a task to a user"
)
async def assign_task(id: str, body: AssignBody, unit: CurrentUnit) -> TaskOut:
    row: TaskRow = await lock_part(unit, TASK, id)
    if row.status not in OPEN_TASK:
        raise IllegalTransition(
            f"it is {row.status}; only an open task is assigned", allowed=sorted(TASK.states[row.status])
        )
    if body.assignee_id == row.assignee_id:
        raise Conflict("the task is assigned so already", code="same_assignee", param="assignee_id")
    before = TaskOut.model_validate(row)
    await store.change(unit, TASK, row, {"assignee_id": body.assignee_id})
    if body.assignee_id is None:
        out: TaskOut = await record(unit, TASK, row.project_id, UPDATED, before, row)
        return out
    detail = {"from": before.assignee_id, "to": body.assignee_id}
    assigned: TaskOut = await record(unit, TASK, row.project_id, ASSIGNED, before, row, **detail)
    return assigned


@router.post(
    "/{id}/complete",
    openapi_extra=declares("works:write", COMPLETED, tool="works_complete_task"),
    summary="Complete a task",
)
async def complete_task(id: str, unit: CurrentUnit) -> TaskOut:
    actor, now = unit.caller.actor.model_dump(), await unit.now()
    return await _move(unit, id, "done", COMPLETED, completed_by=actor, completed_at=now)


@router.post("/{id}/reopen", openapi_extra=declares("works:write", REOPENED), summary="Reopen a task that is done")
async def reopen_task(id: str, unit: CurrentUnit, body: ReasonBody | None = None) -> TaskOut:
    return await _move(unit, id, "open", REOPENED, body, completed_by=None, completed_at=None)


@router.post("/{id}/cancel", openapi_extra=declares("works:write", CANCELLED), summary="Cancel a task")
async def cancel_task(id: str, unit: CurrentUnit, body: ReasonBody | None = None) -> TaskOut:
    return await _move(unit, id, "cancelled", CANCELLED, body)


async def _move(
    unit: UnitOfWork, id: str, to: str, event: EventType, body: ReasonBody | None = None, **values: Any
) -> TaskOut:
    row: TaskRow = await lock_part(unit, TASK, id)
    store.require_transition(TASK, row, to)
    before = TaskOut.model_validate(row)
    await store.change(unit, TASK, row, {"status": to, **values})
    await follow_due_time(unit, row)
    detail = {} if event is COMPLETED else {"reason": body.reason if body is not None else None}
    out: TaskOut = await record(unit, TASK, row.project_id, event, before, row, **detail)
    return out
