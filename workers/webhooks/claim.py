"""Claims deliveries: leases rows that are due or parked, and loads them into the endpoint queues."""

import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import asyncpg

from spine.kernel.settings import WorkSettings
from spine.webhooks import queries
from workers.connection import Connection, DedicatedConnection
from workers.webhooks.endpoint_queue import EndpointQueue
from workers.webhooks.endpoint_queues import EndpointQueues
from workers.webhooks.jobs import DeliveryJob, DeliveryResult, Discarded, EndpointLimits, Placement

_CLAIM: Final = 128
"""Rows per claim. Loading a claim blocks the event loop, and larger claims are no cheaper per row."""
_CLAIM_PARKING: Final = 1000
"""The same if most of the due rows get parked. These are not loaded, and the rows behind them must not wait for ever."""
_FIND_LIMIT: Final = 256
"""Endpoints with parked rows that one search returns."""
_PAUSE_FACTOR: Final = 3
"""After a claim that parks rows, the pause is this many times as long as the claim: parking must not slow the sender."""


class Claimer:
    """Leases rows, in one round trip per batch.

    Calls `record` with deliveries that end without an attempt, `release` with those that are not sent from here, and
    `start_ready` with each queue that got jobs.
    """

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        queues: EndpointQueues,
        work: WorkSettings,
        worker_id: str,
        record: Callable[[DeliveryResult], None],
        release: Callable[[DeliveryJob, Placement], None],
        start_ready: Callable[[EndpointQueue], None],
    ) -> None:
        self._db = DedicatedConnection(pool, async_commit=True)
        self._queues = queues
        self._lease = timedelta(seconds=work.lease_s)
        self._worker_id = worker_id
        self._record = record
        self._release = release
        self._start_ready = start_ready
        self._found_up_to = ""
        self._parking = False
        self.pause_s = 0.0
        """How long to wait before the next claim of due rows (`_PAUSE_FACTOR`)."""

    async def close(self) -> None:
        """Return the connection to the pool."""
        await self._db.close()

    async def claim_due(self) -> bool:
        """Lease due rows. Returns True if more rows may be due."""
        async with self._db.connection() as connection:
            limit = min(self._queues.capacity(claimed=True), _CLAIM_PARKING if self._parking else _CLAIM)
            if limit <= 0:
                return False
            start_s = time.monotonic()
            backlog = {queue.limits.id: (queue, capacity) for queue, capacity in self._queues.with_backlog(start_s)}
            requested = {id: capacity for id, (_, capacity) in backlog.items()}
            rows = await self._claim(
                connection, limit, queries.DUE_CLAIM, limit, list(requested), list(requested.values())
            )
            picked, parked = rows[0]["picked"], rows[0]["parked"]
            leased = rows if rows[0]["id"] is not None else []
            if parked:
                received = Counter(row["endpoint_id"] for row in leased)
                for id, (queue, capacity) in backlog.items():
                    queue.parked = queue.parked or (queue.share > 0 and received[id] >= capacity)
            self._load_rows(leased, start_s, requested)
        self._parking = parked * 2 > picked
        self.pause_s = (time.monotonic() - start_s) * _PAUSE_FACTOR * parked / max(picked, 1)
        return bool(picked == limit)

    async def claim_parked(self) -> bool:
        """Lease rows that are parked behind queues that have drained to half. Returns whether there were any."""
        # The capacity is read under the lock: a claim that waits for another would request capacity that is used by then.
        async with self._db.connection() as connection:
            start_s = time.monotonic()
            refillable = self._queues.refillable(start_s)
            capacity = self._queues.capacity(claimed=True)
            if not refillable or capacity <= 0:
                return False
            requested: dict[str, int] = {}
            queues: list[EndpointQueue] = []
            for queue, limit in refillable:
                if capacity > 0:
                    queues.append(queue)
                    requested[queue.limits.id] = min(limit, capacity)
                    capacity -= limit
            total = sum(requested.values())
            rows = await self._claim(connection, total, queries.PARKED_CLAIM, list(requested), list(requested.values()))
            received = Counter(row["endpoint_id"] for row in rows)
            for queue in queues:
                queue.parked = received[queue.limits.id] == requested[queue.limits.id]
            self._load_rows(rows, start_s, requested)
        return bool(rows)

    async def find_parked(self) -> bool:
        """Find the endpoints that have parked rows, a part of them per call. Returns whether a claim may lease some.

        Another worker may have parked the rows, or a worker that is dead by now.
        """
        async with self._db.connection() as connection:
            rows = await connection.fetch(queries.PARKED_FIND, self._found_up_to, _FIND_LIMIT)
        self._found_up_to = rows[-1]["endpoint_id"] if len(rows) == _FIND_LIMIT else ""
        now_s = time.monotonic()
        claimable = False
        for row in rows:
            queue = self._queues.queue(EndpointLimits.from_row(row))
            queue.parked = queue.share > 0
            claimable = claimable or (queue.share > 0 and self._queues.is_half_empty(queue, now_s))
        return claimable

    async def _claim(self, connection: Connection, reserved: int, query: str, *args: Any) -> list[Any]:
        self._queues.reserve_batch(reserved)
        try:
            return await connection.fetch(query, self._worker_id, self._lease, *args)
        finally:
            self._queues.reserve_batch(-reserved)

    def _load_rows(self, rows: list[Any], claimed_s: float, requested: dict[str, int]) -> None:
        """Load the leased rows. `requested` is the number of rows for which each endpoint's queue had capacity."""
        now_s, lease_ends_s = time.monotonic(), claimed_s + self._lease.total_seconds()
        queues: dict[EndpointQueue, None] = {}
        for row in rows:
            job = DeliveryJob(
                row["workspace_id"], row["id"], row["event_id"], row["type"], row["endpoint_id"], row["failures"], row["series"],
                row["replay_id"], row["accepted_at"], row["body"] or b"", lease_ends_s, row["due_at"],
            )  # fmt: skip
            reason = _discard_reason(row)
            if reason is not None:
                self._record(Discarded(job, reason))
            elif row["disabled"]:
                self._release(job, Placement.HELD)
            else:
                limits = EndpointLimits.from_row(row)
                left = requested.get(limits.id, 0)
                requested[limits.id] = left - 1
                placement = self._queues.reserve(limits, now_s, requested=left > 0)
                if placement is Placement.LEASED:
                    queues[self._queues.load(limits, job, now_s, claimed=True)] = None
                else:
                    self._release(job, placement)
        for queue in queues:
            self._start_ready(queue)


def _discard_reason(row: Any) -> str | None:
    """Why a delivery cannot be attempted again; None if it can."""
    if row["deleted"]:
        return "endpoint_deleted"
    if row["expired"]:
        return "expired"
    if row["body"] is None:
        return "payload_erased"
    return None
