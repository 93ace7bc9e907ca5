"""Open deliveries of one endpoint: hold them, release them, or move them to the dead letters."""

from datetime import datetime
from typing import Final

from sqlalchemy import text

from spine.kernel.unit_of_work import UnitOfWork

_HOLD: Final = text(
    "UPDATE spine.deliveries_open SET state = 'held', due_at = NULL WHERE workspace_id = :ws AND endpoint_id = :id AND leased_by IS NULL"
)
_DISCARD: Final = """
    WITH discarded AS (
        DELETE FROM spine.deliveries_open WHERE workspace_id = :ws AND endpoint_id = :id AND {condition} RETURNING *
    )
    INSERT INTO spine.deliveries_closed
        (workspace_id, id, event_id, type, endpoint_id, state, reason, series, attempts, replay_id, accepted_at, created_at, xid)
    SELECT workspace_id, id, event_id, type, endpoint_id, 'dead', :reason, series, attempts, replay_id, accepted_at, created_at, xid
      FROM discarded
"""
_DISCARD_ALL: Final = text(_DISCARD.format(condition="true"))  # a fixed condition
_DISCARD_HELD: Final = text(
    _DISCARD.format(condition="state = 'held' AND (cast(:since AS timestamptz) IS NULL OR accepted_at < :since)")
)  # a fixed condition too
# Released rows are parked, not due: a million due rows of one endpoint would delay the retries of all other endpoints.
_RELEASE: Final = text(
    "UPDATE spine.deliveries_open SET state = CASE WHEN attempts = '[]' THEN 'pending' ELSE 'retrying' END, due_at = 'infinity' "
    "WHERE workspace_id = :ws AND endpoint_id = :id AND state = 'held'"
)


async def hold_deliveries(unit: UnitOfWork, endpoint_id: str) -> None:
    """Hold the open deliveries of an endpoint that was disabled, except leased ones."""
    await unit.session.execute(_HOLD, {"ws": unit.workspace_id, "id": endpoint_id})


async def discard_deliveries(unit: UnitOfWork, endpoint_id: str) -> None:
    """Move all open deliveries of a deleted endpoint to the dead letters."""
    await unit.session.execute(_DISCARD_ALL, {"ws": unit.workspace_id, "id": endpoint_id, "reason": "endpoint_deleted"})


async def discard_held_deliveries(unit: UnitOfWork, endpoint_id: str, before: datetime | None) -> None:
    """Move held deliveries to the dead letters: those of events accepted before a time, or all if it is None."""
    values = {"ws": unit.workspace_id, "id": endpoint_id, "since": before, "reason": "held_discarded"}
    await unit.session.execute(_DISCARD_HELD, values)


async def release_held_deliveries(unit: UnitOfWork, endpoint_id: str) -> None:
    """Park the held deliveries of an endpoint that was enabled; workers claim them from there."""
    await unit.session.execute(_RELEASE, {"ws": unit.workspace_id, "id": endpoint_id})
