"""Claims due messages: leases their queue rows and decides on them at once.

The longest due come first. When more are due than one claim takes, or one workspace holds all the calls that it may,
workspaces take turns (`workers.notifications.turns`). While such a claim is under way, a second one takes the new messages of
workspaces that have no call in flight: a turn among a backlog takes long, and theirs is the next one anyway.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Final

import structlog

from providers.protocol import CALL_TIMEOUT_S
from spine.notifications.locked_messages import MessageKey
from spine.notifications.message_changes import MessageChanges
from workers.connection import Connection, DedicatedConnection
from workers.halving import write_in_parts
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
CLAIM_NEW: Final = """
    WITH newest AS MATERIALIZED (
        SELECT workspace_id FROM spine.sends_open WHERE due_at <= now() ORDER BY due_at DESC LIMIT 64
    ), picked AS MATERIALIZED (
        SELECT o.ctid FROM (SELECT DISTINCT workspace_id FROM newest WHERE workspace_id <> ALL ($3::text[])) w
         CROSS JOIN LATERAL (
            SELECT ctid FROM spine.sends_open WHERE workspace_id = w.workspace_id AND due_at <= now()
             ORDER BY due_at LIMIT 4 FOR UPDATE SKIP LOCKED) o LIMIT $4
    )
    UPDATE spine.sends_open o SET due_at = now() + $2::interval, leased_by = $1, waits_for = NULL
     WHERE o.ctid = ANY (ARRAY(SELECT ctid FROM picked)) RETURNING o.workspace_id, o.id
"""
"""Leases messages of other workspaces than `$3`, of those whose messages came last."""

_log = structlog.get_logger(__name__)

_BATCH: Final = 32
"""Messages per claim while there is no backlog. If all of one claim are due, workspaces take turns from then on."""
_NEW_BATCH: Final = 16
"""Messages per claim beside another one."""
_FULL_PAUSE_S: Final = 0.05
_LEASE_MARGIN_S: Final = 10.0


def lease_of(lease_s: float) -> timedelta:
    """Return how long a message is leased: longer than any call."""
    return timedelta(seconds=max(lease_s, CALL_TIMEOUT_S + _LEASE_MARGIN_S))


class _Decisions:
    """Decides on claimed messages, and passes on the calls to make."""

    def __init__(
        self,
        context: WorkerContext,
        decider: MessageDecider,
        after_commit: Callable[[MessageChanges, Sequence[PreparedCall]], None],
    ) -> None:
        self._db = DedicatedConnection(context.pool)
        self._decider = decider
        self._after_commit = after_commit

    async def decide(self, claimed: Mapping[MessageKey, str | None], lease_ends_s: float) -> None:
        """Decide on claimed messages. If Postgres refuses what was decided, the message that it refuses waits alone."""

        async def decide(part: Sequence[MessageKey]) -> None:
            async with self._db.connection() as connection:
                wanted = {key: claimed[key] for key in part}
                changes, calls = await self._decider.decide(connection, wanted, lease_ends_s)
            self._after_commit(changes, calls)

        await write_in_parts(list(claimed), decide, self._leave)

    async def _leave(self, key: MessageKey, error: Exception) -> None:
        """Leave a message that is refused until its lease ends. It is due again then."""
        _log.error("a decision was refused", message_id=key[1], error=repr(error))


class MessageClaimer:
    """Leases rows while calls are free. A lease lasts longer than any call. Its loops are `step` and `step_new`."""

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
        self._new_claims = DedicatedConnection(context.pool, async_commit=True)
        self._decisions = _Decisions(context, decider, after_commit)
        self._new_decisions = _Decisions(context, decider, after_commit)
        self._limits = limits
        self._turns = Turns(context.worker_id, lease, limits)
        self._wakeup = asyncio.Event()
        self._new_wakeup = asyncio.Event()
        self._claiming: set[str] | None = None
        """The workspaces whose messages are being decided on; None while nothing is claimed."""
        self._stopping = False

    def wake(self) -> None:
        """Claim without waiting for the next poll."""
        self._wakeup.set()
        if self._claiming is not None:
            self._new_wakeup.set()

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
        self._claiming = set()
        try:
            async with self._claims.connection() as connection:
                claimed = await self._claim(connection)
            if claimed:
                self._claiming = _workspaces(claimed)
                await self._decisions.decide(claimed, lease_ends_s)
        finally:
            self._claiming = None
        if not claimed and self._turns.saw_all:
            await wait_for_wakeup(self._wakeup, self._turns.pause_s)

    async def step_new(self) -> None:
        """Wait for messages that come while a claim is under way, and claim those of workspaces without a call in flight."""
        await self._new_wakeup.wait()
        self._new_wakeup.clear()
        limit = min(_NEW_BATCH, self._limits.free)
        if self._stopping or self._claiming is None or limit <= 0:
            return
        lease_ends_s = time.monotonic() + self._lease.total_seconds()
        busy = sorted({*self._limits.by_workspace, *self._claiming})
        async with self._new_claims.connection() as connection:
            rows = await connection.fetch(CLAIM_NEW, self._worker_id, self._lease, busy, limit)
        if rows:
            claimed = {(row["workspace_id"], row["id"]): None for row in rows}
            await self._new_decisions.decide(claimed, lease_ends_s)

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


def _workspaces(keys: Iterable[MessageKey]) -> set[str]:
    return {workspace_id for workspace_id, _ in keys}
