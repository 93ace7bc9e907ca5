"""What happens to a lead or a deal is told on its own timeline and on its contact's."""

from collections.abc import Mapping, Sequence
from typing import Any

from spine.kernel import store, timeline
from spine.kernel.timeline import Change
from spine.kernel.unit_of_work import UnitOfWork


def changes_between(before: Mapping[str, Any], after: Mapping[str, Any], fields: Sequence[str]) -> list[Change]:
    """Return the fields that differ, with both values."""
    return [
        Change(field=name, old=before[name], new=after[name])
        for name in fields
        if store.differs(before[name], after[name])
    ]


async def tell(
    unit: UnitOfWork,
    kind: str,
    *subject_ids: str,
    changes: Sequence[Change] = (),
    detail: dict[str, Any] | None = None,
) -> None:
    """Append an entry to the timeline of each subject."""
    for subject_id in subject_ids:
        await timeline.append(unit, subject_id, kind, changes=changes, detail=detail)
