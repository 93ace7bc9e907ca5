"""Claims: leases what is due and what is parked behind lanes with room, and loads it into the lanes."""

import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import asyncpg

from spine.kernel.settings import WorkSettings
from spine.webhooks import queries
from workers.connection import Connection, DedicatedConnection
from workers.webhooks.endpoint_queues import EndpointQueue, EndpointQueues
from workers.webhooks.jobs import DeliveryJob, DeliveryResult, Discarded, EndpointLimits, Placement

_CLAIM: Final = 128
"""Rows of a claim: what loads them stops everything else meanwhile, and larger ones are no cheaper a row."""
_CLAIM_PARKING: Final = 1000
"""The same where most of what is due is parked, which needs no loading: what lies behind it must not wait for ever."""
_FOUND_MAX: Final = 256
_REST: Final = 3
"""Moving rows of full lanes out of the way rests this many times as long as it took: it must not cost the lanes their pace."""


class Claimer:
    """Leases rows, one round trip a batch. `record` takes those that end here, `release` those that go another way."""

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        queues: EndpointQueues,
        work: WorkSettings,
        worker_id: str,
        record: Callable[[DeliveryResult], None],
        release: Callable[[DeliveryJob, Placement], None],
        pump: Callable[[EndpointQueue], None],
    ) -> None:
        self._db = DedicatedConnection(pool, async_commit=True)
        self._queues = queues
        self._lease = timedelta(seconds=work.lease_s)
        self._worker_id = worker_id
        self._record = record
        self._release = release
        self._pump = pump
        self._found_up_to = ""
        self._parking = False
        self.rest_s = 0.0
        """How long to rest before the next claim of what is due: see `_REST`."""

    async def close(self) -> None:
        """Give the connection back."""
        await self._db.close()

    async def claim_due(self) -> bool:
        """Lease what is due; answers whether there may be more."""
        async with self._db.connection() as connection:
            wanted = min(self._queues.room(claimed=True), _CLAIM_PARKING if self._parking else _CLAIM)
            if wanted <= 0:
                return False
            start_s = time.monotonic()
            rooms = {queue.limits.id: (queue, room) for queue, room in self._queues.with_backlog(start_s)}
            asked = {id: room for id, (_, room) in rooms.items()}
            rows = await self._claim(connection, wanted, queries.DUE_CLAIM, wanted, list(asked), list(asked.values()))
            picked, parked = rows[0]["picked"], rows[0]["parked"]
            leased = rows if rows[0]["id"] is not None else []
            if parked:
                came = Counter(row["endpoint_id"] for row in leased)
                for id, (queue, room) in rooms.items():
                    queue.parked = queue.parked or (queue.share > 0 and came[id] >= room)
            self._load(leased, start_s, asked)
        self._parking = parked * 2 > picked
        self.rest_s = (time.monotonic() - start_s) * _REST * parked / max(picked, 1)
        return bool(picked == wanted)

    async def claim_parked(self) -> bool:
        """Lease what is parked behind lanes that have drained to half; answers whether any were."""
        # What has room is asked under the lock: a claim that waits for another would ask for room that is taken by then.
        async with self._db.connection() as connection:
            start_s = time.monotonic()
            refillable = self._queues.refillable(start_s)
            room = self._queues.room(claimed=True)
            if not refillable or room <= 0:
                return False
            asked: dict[str, int] = {}
            queues: list[EndpointQueue] = []
            for queue, wanted in refillable:
                if room > 0:
                    queues.append(queue)
                    asked[queue.limits.id] = min(wanted, room)
                    room -= wanted
            total = sum(asked.values())
            rows = await self._claim(connection, total, queries.PARKED_CLAIM, list(asked), list(asked.values()))
            came = Counter(row["endpoint_id"] for row in rows)
            for queue in queues:
                queue.parked = came[queue.limits.id] == asked[queue.limits.id]
            self._load(rows, start_s, asked)
        return bool(rows)

    async def find_parked(self) -> bool:
        """See behind which lanes rows are parked, some lanes a time; answers whether any of them is ours to serve.

        Another worker may have parked them, or one that is dead by now.
        """
        async with self._db.connection() as connection:
            rows = await connection.fetch(queries.PARKED_FIND, self._found_up_to, _FOUND_MAX)
        self._found_up_to = rows[-1]["endpoint_id"] if len(rows) == _FOUND_MAX else ""
        now_s = time.monotonic()
        ours = False
        for row in rows:
            queue = self._queues.queue(EndpointLimits.read(row))
            queue.parked = queue.share > 0
            ours = ours or (queue.share > 0 and self._queues.drained(queue, now_s))
        return ours

    async def _claim(self, connection: Connection, reserved: int, query: str, *args: Any) -> list[Any]:
        self._queues.reserve_room(reserved)
        try:
            return await connection.fetch(query, self._worker_id, self._lease, *args)
        finally:
            self._queues.reserve_room(-reserved)

    def _load(self, rows: list[Any], claimed_s: float, asked: dict[str, int]) -> None:
        """Load what was leased; `asked` is how many each endpoint's lane had room for when it was asked for."""
        now_s, lease_ends_s = time.monotonic(), claimed_s + self._lease.total_seconds()
        queues: dict[EndpointQueue, None] = {}
        for row in rows:
            job = DeliveryJob(
                row["workspace_id"], row["id"], row["event_id"], row["type"], row["endpoint_id"], row["failures"], row["series"],
                row["replay_id"], row["accepted_at"], row["body"] or b"", lease_ends_s, row["due_at"],
            )  # fmt: skip
            reason = _end(row)
            if reason is not None:
                self._record(Discarded(job, reason))
            elif row["disabled"]:
                self._release(job, Placement.HELD)
            else:
                limits = EndpointLimits.read(row)
                left = asked.get(limits.id, 0)
                asked[limits.id] = left - 1
                placement = self._queues.reserve(limits, now_s, asked=left > 0)
                if placement is Placement.LEASED:
                    queues[self._queues.load(limits, job, now_s, claimed=True)] = None
                else:
                    self._release(job, placement)
        for queue in queues:
            self._pump(queue)


def _end(row: Any) -> str | None:
    """Why a delivery can never be attempted again."""
    if row["deleted"]:
        return "endpoint_deleted"
    if row["expired"]:
        return "expired"
    if row["body"] is None:
        return "payload_erased"
    return None
