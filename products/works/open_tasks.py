"""Cancelling what is open when a project is closed: one statement changes the tasks, and one deletes their jobs."""

from typing import Final

from sqlalchemy import func, select, update

from products.works.history import entry
from products.works.overdue import KIND
from products.works.tasks import CANCELLED, IS_OPEN, TaskCancelled, TaskOut, TaskRow
from spine.kernel import jobs, timeline
from spine.kernel.unit_of_work import UnitOfWork

_REASON: Final = "the project was closed"


async def cancel_open_tasks(unit: UnitOfWork, project_id: str) -> None:
    """Cancel the open tasks of a locked project, so that they leave the queues. Each has its event and its entry."""
    found = (TaskRow.workspace_id == unit.workspace_id, TaskRow.project_id == project_id, IS_OPEN)
    rows = await unit.session.scalars(select(TaskRow).where(*found).order_by(TaskRow.id).with_for_update())
    before = [TaskOut.model_validate(row) for row in rows]
    if not before:
        return
    change = (
        update(TaskRow)
        .where(*found)
        .values(status="cancelled", version=TaskRow.version + 1, updated_at=func.now())
        .returning(TaskRow)
        .execution_options(populate_existing=True)
    )
    after = {row.id: TaskOut.model_validate(row) for row in await unit.session.scalars(change)}
    await jobs.cancel_many(unit, KIND, list(after))
    for task in before:
        data = TaskCancelled(**after[task.id].model_dump(), reason=_REASON)
        unit.emit(CANCELLED, data, sequence=data.version)
    await timeline.append_all(
        unit, project_id, [entry(CANCELLED.name, task, after[task.id], reason=_REASON) for task in before]
    )
