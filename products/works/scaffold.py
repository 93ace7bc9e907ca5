"""Scaffolding: the milestones and tasks that a template gives a new project, in the transaction that makes it (W-03)."""

from datetime import datetime, timedelta
from typing import Any

from products.works.history import entry
from products.works.milestones import CREATED as MILESTONE_CREATED
from products.works.milestones import MILESTONE, MilestoneOut, MilestoneRow
from products.works.overdue import KIND
from products.works.projects import ProjectRow
from products.works.tasks import CREATED as TASK_CREATED
from products.works.tasks import TASK, TaskOut, TaskRow
from products.works.templates import ProjectTemplateRow
from spine.kernel import jobs, store
from spine.kernel.timeline import NewEntry
from spine.kernel.unit_of_work import UnitOfWork


async def scaffold(unit: UnitOfWork, project: ProjectRow, template: ProjectTemplateRow) -> list[NewEntry]:
    """Insert what the template says, with one statement for each kind. Returns the entries for the project's timeline."""

    def due_at(offset_days: int | None) -> datetime | None:
        return None if offset_days is None else project.created_at + timedelta(days=offset_days)

    milestones: list[MilestoneRow] = await store.create_many(
        unit, MILESTONE, [_milestone(project.id, n, made, due_at) for n, made in enumerate(template.milestones)]
    )
    ids = {milestone.name: milestone.id for milestone in milestones}
    tasks: list[TaskRow] = await store.create_many(
        unit,
        TASK,
        [
            {
                "project_id": project.id,
                "milestone_id": ids.get(made["milestone"]),
                "title": made["title"],
                "due_at": due_at(made["offset_days"]),
            }
            for made in template.tasks
        ],
    )
    await jobs.schedule_many(unit, KIND, {task.id: task.due_at for task in tasks if task.due_at is not None})
    told = []
    for milestone in milestones:
        phase = MilestoneOut.model_validate(milestone)
        unit.emit(MILESTONE_CREATED, phase, sequence=milestone.version)
        told.append(entry(MILESTONE_CREATED.name, None, phase))
    for task in tasks:
        work = TaskOut.model_validate(task)
        unit.emit(TASK_CREATED, work, sequence=task.version)
        told.append(entry(TASK_CREATED.name, None, work))
    return told


def _milestone(project_id: str, position: int, made: dict[str, Any], due_at: Any) -> dict[str, Any]:
    return {
        "project_id": project_id,
        "name": made["name"],
        "position": position,
        "due_at": due_at(made["offset_days"]),
        "billing": made["billing"],
    }
