"""Claims deliveries: looks at rows that are due or parked, decides where each goes, and leases those that have room.

A claim takes two statements. The first reads without a lock what decides: the endpoint, and the size of the body. The
second leases the rows, and loads only their bodies; other rows are parked or held. Several workers may look at the same
row. Then the first one leases it, and the others give back the place that they had reserved.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from typing import Any, Final

import asyncpg

from spine.kernel.settings import WorkSettings
from spine.webhooks import queries
from workers.connection import Connection, DedicatedConnection
from workers.heartbeat import Heartbeat
from workers.webhooks.claim_plan import ClaimPlan
from workers.webhooks.due_turns import DueTurns
from workers.webhooks.endpoint_queue import EndpointQueue
from workers.webhooks.endpoint_queues import EndpointQueues
from workers.webhooks.jobs import DeliveryJob, DeliveryResult, Discarded, EndpointLimits
from workers.webhooks.refill import Refill

CLAIM_ROWS: Final = 128
"""Rows per claim. Loading a claim blocks the event loop, and larger claims are no cheaper per row."""
_FIND_LIMIT: Final = 256
"""Endpoints with parked rows that one search returns."""
_PAUSE_FACTOR: Final = 3
"""After a claim that only parks rows, the pause is this many times as long as the claim: parking must not slow the sender."""
_NOTHING_PAUSE_S: Final = 0.01
"""Pause after a claim that found due rows, but room for none of them."""


class Claimer:
    """Leases rows, in two round trips per batch.

    Calls `record` with deliveries that end without an attempt, and `start_ready` with each queue that got jobs.
    """

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        queues: EndpointQueues,
        work: WorkSettings,
        heartbeat: Heartbeat,
        record: Callable[[DeliveryResult], None],
        start_ready: Callable[[EndpointQueue], None],
    ) -> None:
        self._db = DedicatedConnection(pool, async_commit=True)
        self._queues = queues
        self._lease = timedelta(seconds=work.lease_s)
        self._worker_id = heartbeat.worker_id
        self._record = record
        self._start_ready = start_ready
        self._due = DueTurns(queues, heartbeat)
        self.refill = Refill(queues)
        self._found_up_to = ""
        self.pause_s = 0.0
        """How long to wait before the next claim of due rows."""

    async def close(self) -> None:
        """Return the connection to the pool."""
        await self._db.close()

    async def claim_due(self) -> bool:
        """Lease due rows. Returns True if more rows may be due."""
        self.pause_s = 0.0
        async with self._db.connection() as connection:
            limit = min(self._queues.capacity(claimed=True), CLAIM_ROWS)
            if limit <= 0:
                return False
            start_s = time.monotonic()
            rows = await self._due.look(connection, limit)
            plan = await self._place(connection, rows, start_s)
        if plan.left:
            self._due.left()
        if plan.parked:
            self.pause_s = (time.monotonic() - start_s) * _PAUSE_FACTOR * plan.parked / len(rows)
        elif self._due.has_backlog and not plan.written:
            self.pause_s = _NOTHING_PAUSE_S
        return self._due.has_backlog

    async def claim_parked(self) -> bool:
        """Lease rows that are parked behind queues that have drained to half. Returns True if more may be leased now."""
        async with self._db.connection() as connection:
            start_s = time.monotonic()
            # The room is read under the lock: a claim that waits for another would request room that is used by then.
            taken = self.refill.take(start_s, CLAIM_ROWS)
            if not taken:
                return False
            rows: list[Any] = await connection.fetch(
                queries.PARKED_LOOK,
                [queue.limits.workspace_id for queue, _ in taken],
                [queue.limits.id for queue, _ in taken],
                [count for _, count in taken],
            )
            await self._place(connection, rows, start_s)
        self._note_parked(taken, rows)
        return bool(self.refill)

    def _note_parked(self, taken: list[tuple[EndpointQueue, int]], rows: list[Any]) -> None:
        """Queues that got all the rows that they asked for may have more parked ones."""
        now_s = time.monotonic()
        seen: dict[tuple[str, str], int] = {}
        for row in rows:
            key = (row["workspace_id"], row["endpoint_id"])
            seen[key] = seen.get(key, 0) + 1
        for queue, count in taken:
            queue.parked = seen.get(queue.key, 0) >= count
            if queue.parked and self._queues.is_half_empty(queue, now_s):
                self.refill.add(queue)

    async def find_parked(self) -> bool:
        """Find the endpoints that have parked rows, a part of them per call. Returns whether a claim may lease some.

        Another worker may have parked the rows, or a worker that is dead by now.
        """
        async with self._db.connection() as connection:
            rows = await connection.fetch(queries.PARKED_FIND, self._found_up_to, _FIND_LIMIT)
        self._found_up_to = rows[-1]["endpoint_id"] if len(rows) == _FIND_LIMIT else ""
        now_s = time.monotonic()
        for row in rows:
            queue = self._queues.queue(EndpointLimits.from_row(row))
            queue.parked = queue.share > 0
            if queue.parked and self._queues.is_half_empty(queue, now_s):
                self.refill.add(queue)
        return bool(self.refill)

    async def _place(self, connection: Connection, rows: list[Any], start_s: float) -> ClaimPlan:
        """Decide on the rows, write the decisions, and load the leased rows."""
        with ExitStack() as reserved:
            plan = ClaimPlan(self._queues, rows, time.monotonic())
            reserved.callback(plan.cancel)
            if plan.written:
                leased = await connection.fetch(
                    queries.CLAIM,
                    self._worker_id,
                    self._lease,
                    [row["workspace_id"] for row, _ in plan.written],
                    [row["id"] for row, _ in plan.written],
                    [int(placement) for _, placement in plan.written],
                )
                self._load(plan, leased, start_s + self._lease.total_seconds())
        return plan

    def _load(self, plan: ClaimPlan, leased: list[Any], lease_ends_s: float) -> None:
        now_s = time.monotonic()
        bodies: dict[str, bytes | None] = {}
        queues: dict[EndpointQueue, None] = {}
        for row in leased:
            if row["has_body"]:
                bodies[row["event_id"]] = row["body"]
            body, one = bodies[row["event_id"]], plan.leased[row["id"]]
            job = DeliveryJob(
                row["workspace_id"], row["id"], row["event_id"], row["type"], one.row["endpoint_id"], row["failures"],
                row["series"], row["replay_id"], row["accepted_at"], body or b"", lease_ends_s, one.row["due_at"],
            )  # fmt: skip
            if one.limits is None or body is None:  # erased since the first statement
                self._record(Discarded(job, one.discard_reason or "payload_erased"))
            else:
                del plan.leased[row["id"]]
                queues[self._queues.load(one.limits, job, now_s, claimed=True)] = None
        for queue in queues:
            self._start_ready(queue)
