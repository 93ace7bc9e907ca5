"""Claims due messages: leases their queue rows and decides on them at once."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

from providers.protocol import CALL_TIMEOUT_S
from spine.notifications.message_changes import MessageChanges
from workers.connection import DedicatedConnection
from workers.notifications.calls import PreparedCall
from workers.notifications.decide import MessageDecider
from workers.pipeline import WorkerContext, wait_for_wakeup

CLAIM: Final = """
    WITH picked AS MATERIALIZED (
        SELECT ctid FROM spine.sends_open WHERE due_at <= now() ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED
    )
    UPDATE spine.sends_open o SET due_at = now() + $2::interval, leased_by = $1
     WHERE o.ctid = ANY (ARRAY(SELECT ctid FROM picked)) RETURNING o.workspace_id, o.id
"""

_BATCH: Final = 200
_POLL_S: Final = 1.0
_FULL_PAUSE_S: Final = 0.05
_LEASE_MARGIN_S: Final = 10.0


class MessageClaimer:
    """Leases at most `capacity()` rows per step. A lease lasts longer than any call."""

    def __init__(
        self,
        context: WorkerContext,
        decider: MessageDecider,
        capacity: Callable[[], int],
        after_commit: Callable[[MessageChanges, Sequence[PreparedCall]], None],
    ) -> None:
        self._worker_id = context.worker_id
        self._lease = timedelta(seconds=max(context.work.lease_s, CALL_TIMEOUT_S + _LEASE_MARGIN_S))
        self._db = DedicatedConnection(context.pool)
        self._decider = decider
        self._capacity = capacity
        self._after_commit = after_commit
        self._wakeup = asyncio.Event()
        self._stopping = False

    def wake(self) -> None:
        """Claim without waiting for the next poll."""
        self._wakeup.set()

    def stop(self) -> None:
        """Claim nothing more."""
        self._stopping = True

    async def step(self) -> None:
        """Claim one batch and decide on it. Waits for a wakeup if no more rows are due."""
        limit = min(_BATCH, self._capacity())
        if self._stopping or limit <= 0:
            await asyncio.sleep(_FULL_PAUSE_S)
            return
        async with self._db.connection() as connection:
            rows = await connection.fetch(CLAIM, self._worker_id, self._lease, limit)
            keys = [(row["workspace_id"], row["id"]) for row in rows]
            decided = await self._decider.decide(connection, keys, {}) if keys else None
        if decided is not None:
            self._after_commit(*decided)
        if len(rows) < limit:
            await wait_for_wakeup(self._wakeup, _POLL_S)
