"""The heartbeat of this worker, and the list of live workers. Workers divide the endpoints' limits by this list.

Each beat measures Postgres' clock, by which everything is due.
"""

import asyncio
import os
import socket
from typing import Final

import asyncpg

from spine import __version__
from spine.kernel.database_clock import DatabaseClock

HEARTBEAT_S: Final = 5.0
ALIVE_S: Final = 15.0
"""A worker without a heartbeat for this long is dead and has no share of any endpoint."""
_DELETE_AFTER_S: Final = 300

_BEAT = """
    WITH beat AS (
        INSERT INTO spine.workers AS w (id, host, pid, software_version, clock_offset_s) VALUES ($1, $2, $3, $4, $7)
        ON CONFLICT (id) DO UPDATE SET seen_at = now(), clock_offset_s = $7 RETURNING id
    ), deleted AS (
        DELETE FROM spine.workers WHERE id <> $1 AND seen_at < now() - make_interval(secs => $6)
    )
    SELECT id FROM spine.workers WHERE seen_at > now() - make_interval(secs => $5) UNION SELECT id FROM beat
"""


class Heartbeat:
    """Writes a heartbeat every 5 s and keeps the list of live workers. `changed` is set when the list changes."""

    def __init__(
        self, pool: "asyncpg.Pool[asyncpg.Record]", worker_id: str, clock: DatabaseClock | None = None
    ) -> None:
        self._pool = pool
        self.clock = clock or DatabaseClock()
        self.worker_id = worker_id
        self.live_workers: frozenset[str] = frozenset({worker_id})
        self.changed = asyncio.Event()
        self._beating: asyncio.Task[None] | None = None

    async def beat(self) -> None:
        """Write this worker's heartbeat and read the live workers."""
        async with self._pool.acquire() as connection:
            await self.clock.measure(connection.fetchval)
            rows = await connection.fetch(
                _BEAT, self.worker_id, socket.gethostname(), os.getpid(), __version__, ALIVE_S, float(_DELETE_AFTER_S),
                self.clock.offset_s,
            )  # fmt: skip
        live_workers = frozenset(row["id"] for row in rows)
        if live_workers != self.live_workers:
            self.live_workers = live_workers
            self.changed.set()

    async def step(self) -> None:
        """Beat once, then wait until the next beat is due."""
        # A cancelled beat could still be written after `deregister`, so a running beat is not cancelled.
        self._beating = asyncio.create_task(self.beat())
        await asyncio.shield(self._beating)
        await asyncio.sleep(HEARTBEAT_S)

    async def deregister(self) -> None:
        """Delete this worker from the list. The other workers take its share at their next beat."""
        if self._beating is not None:
            await asyncio.wait([self._beating])
        await self._pool.execute("DELETE FROM spine.workers WHERE id = $1", self.worker_id)
