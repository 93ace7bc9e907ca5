"""Claims due messages: leases their queue rows and decides on them at once.

The longest due come first. When more are due than one claim takes, or one workspace holds all the calls that it may,
workspaces take turns (`workers.notifications.turns`).
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Final

import structlog

from providers.protocol import CALL_TIMEOUT_S
from spine.notifications.locked_messages import MessageKey
from spine.notifications.message_changes import MessageChanges
from workers.connection import Connection, DedicatedConnection
from workers.database_errors import is_refusal
from workers.notifications.calls import PreparedCall
from workers.notifications.decide import MessageDecider
from workers.notifications.limits import SendLimits
from workers.notifications.turns import Turns
from workers.pipeline import WorkerContext, wait_for_wakeup

CLAIM: Final = """
    WITH picked AS MATERIALIZED (
        SELECT ctid FROM spine.sends_open WHERE due_at <= now() ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED
    )
    UPDATE spine.sends_open o SET due_at = now() + $2::interval, leased_by = $1, waits_for = NULL
     WHERE o.ctid = ANY (ARRAY(SELECT ctid FROM picked)) RETURNING o.workspace_id, o.id
"""

_log = structlog.get_logger(__name__)

_BATCH: Final = 32
"""Messages per claim while there is no backlog. If all of one claim are due, workspaces take turns from then on."""
_FULL_PAUSE_S: Final = 0.05
_LEASE_MARGIN_S: Final = 10.0


def lease_of(lease_s: float) -> timedelta:
    """Return how long a message is leased: longer than any call."""
    return timedelta(seconds=max(lease_s, CALL_TIMEOUT_S + _LEASE_MARGIN_S))


class MessageClaimer:
    """Leases rows while calls are free. A lease lasts longer than any call."""

    def __init__(
        self,
        context: WorkerContext,
        decider: MessageDecider,
        limits: SendLimits,
        lease: timedelta,
        after_commit: Callable[[MessageChanges, Sequence[PreparedCall]], None],
    ) -> None:
        self._worker_id = context.worker_id
        self._lease = lease
        self._claims = DedicatedConnection(context.pool, async_commit=True)
        self._db = DedicatedConnection(context.pool)
        self._decider = decider
        self._limits = limits
        self._after_commit = after_commit
        self._turns = Turns(context.worker_id, lease, limits)
        self._wakeup = asyncio.Event()
        self._stopping = False

    def wake(self) -> None:
        """Claim without waiting for the next poll."""
        self._wakeup.set()

    def on_call_end(self) -> None:
        """Claim again if messages wait for a call."""
        if self._turns.backlog or self._limits.waiting:
            self._wakeup.set()

    def note_waiting(self, account_ids: Sequence[str]) -> None:
        """Look soon for messages that wait for these accounts."""
        self._turns.note_waiting(account_ids)
        self._wakeup.set()

    def stop(self) -> None:
        """Claim nothing more."""
        self._stopping = True

    async def step(self) -> None:
        """Claim one batch and decide on it. Waits for a wakeup if nothing more can be claimed."""
        if self._stopping or self._limits.free <= 0:
            await asyncio.sleep(_FULL_PAUSE_S)
            return
        lease_ends_s = time.monotonic() + self._lease.total_seconds()
        async with self._claims.connection() as connection:
            claimed = await self._claim(connection)
        if claimed:
            await self._decide(claimed, lease_ends_s)
        if not claimed and self._turns.saw_all:
            await wait_for_wakeup(self._wakeup, self._turns.pause_s)

    async def _decide(self, claimed: Mapping[MessageKey, str | None], lease_ends_s: float) -> None:
        """Decide on claimed messages. If Postgres refuses what was decided, the message that it refuses waits alone."""
        parts = [list(claimed)]
        while parts:
            part = parts.pop()
            try:
                async with self._db.connection() as connection:
                    wanted = {key: claimed[key] for key in part}
                    changes, calls = await self._decider.decide(connection, wanted, lease_ends_s)
            except Exception as error:
                if not is_refusal(error):
                    raise
                middle = len(part) // 2
                if middle:
                    parts += [part[middle:], part[:middle]]
                else:  # it is due again when its lease ends
                    _log.error("a decision was refused", message_id=part[0][1], error=repr(error))
            else:
                self._after_commit(changes, calls)

    async def _claim(self, connection: Connection) -> Mapping[MessageKey, str | None]:
        """Lease rows. Returns their keys, with the account for which a message has waited."""
        claimed: dict[MessageKey, str | None] = {}
        if not self._turns.backlog and not self._limits.is_crowded:
            limit = min(_BATCH, self._limits.free)
            rows = await connection.fetch(CLAIM, self._worker_id, self._lease, limit)
            claimed = {(row["workspace_id"], row["id"]): None for row in rows}
            self._turns.backlog = len(rows) == limit
            if self._turns.backlog:
                return claimed
        return claimed | await self._turns.claim(connection)
