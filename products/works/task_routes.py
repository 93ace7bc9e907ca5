"""The routes of tasks: adding, listing and changing them. A task is started by PATCH; the other moves are actions."""

from typing import Any, Final

from sqlalchemy import func, select

from products.crm.list_filters import filtered_page
from products.crm.references import Reference
from products.works.history import entry, record
from products.works.overdue import follow_due_time
from products.works.projects import keep_open, lock_part
from products.works.tasks import (
    ASSIGNED,
    CREATED,
    TASK,
    UPDATED,
    TaskAssigned,
    TaskCreate,
    TaskOut,
    TaskRow,
    TaskStatus,
    TaskUpdate,
)
from spine.kernel import store, timeline
from spine.kernel.crud import crud_router
from spine.kernel.errors import Conflict
from spine.kernel.routes import CurrentUnit, IfMatch, Paging, declares, version_of
from spine.kernel.store import Page
from spine.kernel.unit_of_work import UnitOfWork

MAX_PER_PROJECT: Final = 2000
"""Tasks of one project: a board counts them all, and closing may cancel them all."""

router = crud_router(TASK, "works", "get")


@router.post("", status_code=201, openapi_extra=declares("works:write", CREATED, ASSIGNED), summary="Add a task")
async def create_task(body: TaskCreate, unit: CurrentUnit) -> TaskOut:
    await keep_open(unit, body.project_id)
    await _refuse_too_many(unit, body.project_id)
    row: TaskRow = await store.create(unit, TASK, **store.columns(body))
    if row.due_at is not None:
        await follow_due_time(unit, row)
    out: TaskOut = await store.emit_event(unit, TASK, row, "created")
    told = [entry(CREATED.name, None, out)]
    if row.assignee_id is not None:
        moved = {"from": None, "to": row.assignee_id}
        unit.emit(ASSIGNED, TaskAssigned(**out.model_dump(), **moved), sequence=row.version)
        told.append(entry(ASSIGNED.name, out, out, **moved))
    await timeline.append_all(unit, row.project_id, told)
    return out


async def _refuse_too_many(unit: UnitOfWork, project_id: str) -> None:
    found = select(TaskRow.id).where(TaskRow.workspace_id == unit.workspace_id, TaskRow.project_id == project_id)
    count = await unit.session.scalar(select(func.count()).select_from(found.limit(MAX_PER_PROJECT).subquery()))
    if (count or 0) >= MAX_PER_PROJECT:
        raise Conflict(f"a project may have {MAX_PER_PROJECT} tasks", code="too_many_tasks")


@router.get("", openapi_extra=declares("works:read"), summary="List tasks, newest first")
async def list_tasks(
    unit: CurrentUnit,
    paging: Paging,
    project_id: Reference | None = None,
    milestone_id: Reference | None = None,
    assignee_id: Reference | None = None,
    status: TaskStatus | None = None,
) -> Page[TaskOut]:
    return await filtered_page(
        unit,
        TASK,
        paging,
        (TaskRow.milestone_id, milestone_id),
        (TaskRow.project_id, project_id),
        (TaskRow.assignee_id, assignee_id),
        checked=[(TaskRow.status, status)],
    )


@router.patch("/{id}", openapi_extra=declares("works:write", UPDATED), summary="Change or start a task")
async def update_task(id: str, body: TaskUpdate, unit: CurrentUnit, if_match: IfMatch = None) -> TaskOut:
    row: TaskRow = await lock_part(unit, TASK, id)
    values: dict[str, Any] = store.columns(body)
    if "status" in values:
        store.require_transition(TASK, row, values["status"])
    before = TaskOut.model_validate(row)
    due_time_moves = "due_at" in values and values["due_at"] != row.due_at
    if due_time_moves:
        values["overdue_at"] = None
    if not await store.change(unit, TASK, row, values, version_of(if_match)):
        return before
    if due_time_moves:
        await follow_due_time(unit, row)
    out: TaskOut = await record(unit, TASK, row.project_id, UPDATED, before, row)
    return out
