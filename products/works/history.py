"""The timeline of a project: what happened to it, its milestones and its tasks, by whom and when (W-08).

It replays to the present state: `changes` of an entry are what the entry changed on the object that `detail.id` names, and
those of a new object are all its fields.
"""

from typing import Any, Final

from spine.kernel import store, timeline
from spine.kernel.events import EventType
from spine.kernel.resource import Resource, ResourceOut, TenantRow
from spine.kernel.timeline import Change, NewEntry
from spine.kernel.unit_of_work import UnitOfWork

_UNTRACKED: Final = {"id", "object", "created_at", "updated_at", "version"}


def entry(kind: str, before: ResourceOut | None, after: ResourceOut, **detail: Any) -> NewEntry:
    """Return the entry of a change. `before` is None for a new object."""
    old = before.model_dump(mode="json") if before is not None else {}
    changes = [
        Change(field=name, old=old.get(name), new=value)
        for name, value in after.model_dump(mode="json").items()
        if name not in _UNTRACKED and store.differs(old.get(name), value)
    ]
    return NewEntry(kind, changes, {"id": after.id, **detail})


async def record(
    unit: UnitOfWork,
    resource: Resource,
    project_id: str,
    event: EventType,
    before: ResourceOut,
    row: TenantRow,
    **detail: Any,
) -> Any:
    """Emit the event of a change and append it to the project's timeline. Returns the response model.

    The event's data is the object as it is now, with `detail` and the changed fields where its model has them.
    """
    out = resource.out.model_validate(row)
    told = entry(event.name, before, out, **detail)
    unit.emit(event, event.data(**out.model_dump(), **detail, changes=list(told.changes)), sequence=row.version)
    await timeline.append_all(unit, project_id, [told])
    return out
