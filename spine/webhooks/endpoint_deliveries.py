"""The open deliveries of an endpoint follow its row: held when it is disabled, parked when it is enabled, dead when it is deleted.

The row changes at once. A first bounded step runs in the same transaction. If deliveries are left, a row of
`spine.endpoint_transitions` keeps the place, and the workers go on (`workers.webhooks.endpoint_transitions`). A delivery that
is claimed before its turn is held or discarded by its claim, which reads the endpoint's row.
"""

from datetime import datetime
from typing import Final

from sqlalchemy import text

from spine.kernel.unit_of_work import UnitOfWork

FIRST_STEP: Final = 1000
"""Deliveries that a request reads itself."""

_CHANGED: Final = text("SELECT spine.endpoint_changed(:ws, :id, cast(:discard_before AS timestamptz))")
_FOLLOW: Final = text("SELECT done FROM spine.endpoint_follow(:ws, :id, :limit)")


async def follow_endpoint(unit: UnitOfWork, endpoint_id: str, discard_before: datetime | None = None) -> None:
    """Let the deliveries follow the endpoint's row, which this unit has changed and locked.

    With `discard_before`, those that were held for events accepted earlier become dead letters.
    """
    key = {"ws": unit.workspace_id, "id": endpoint_id}
    await unit.session.execute(_CHANGED, {**key, "discard_before": discard_before})
    if not await unit.session.scalar(_FOLLOW, {**key, "limit": FIRST_STEP}):
        unit.wake("deliver")
