"""Overdue tasks: a job per task at its due time, which is moved and deleted with the task's changes (W-10, X12).

Whoever changes a task locks it and then its job. The job has its own row first, so it does not wait for a task that is being
changed: it comes again a moment later.
"""

from datetime import timedelta
from typing import Any, Final

from sqlalchemy import select

from policies.work_states import OPEN_TASK
from products.works.history import record
from products.works.tasks import IS_OPEN, OVERDUE, TASK, TaskOut, TaskRow
from spine.kernel import jobs, store
from spine.kernel.jobs import Job
from spine.kernel.unit_of_work import UnitOfWork

KIND: Final = "works.task_overdue"
_AGAIN: Final = timedelta(milliseconds=200)


async def follow_due_time(unit: UnitOfWork, row: TaskRow) -> None:
    """Schedule or delete the job of a task that was made or changed."""
    if row.status in OPEN_TASK and row.due_at is not None and row.overdue_at is None:
        await jobs.schedule(unit, KIND, row.id, row.due_at)
    else:
        await jobs.cancel(unit, KIND, row.id)


async def note_overdue(unit: UnitOfWork, job: Job) -> None:
    """Note that a task's due time has passed, and emit it: once, since the job is deleted in this transaction."""
    mine: Any = (TaskRow.workspace_id == unit.workspace_id, TaskRow.id == job.subject_id)
    waiting = select(TaskRow).where(*mine, IS_OPEN, TaskRow.overdue_at.is_(None), TaskRow.due_at.is_not(None))
    row = await unit.session.scalar(waiting.with_for_update(skip_locked=True))
    if row is None:
        if await unit.session.scalar(waiting) is not None:
            await jobs.schedule(unit, KIND, job.subject_id, await unit.now() + _AGAIN)
        return
    before = TaskOut.model_validate(row)
    await store.change(unit, TASK, row, {"overdue_at": await unit.now()})
    await record(unit, TASK, row.project_id, OVERDUE, before, row)
