"""Who works: this process's heartbeat, and the list of live workers that the lanes share their caps by."""

import asyncio
import os
import socket
from typing import Final

import asyncpg

from spine import __version__

HEARTBEAT_S: Final = 5.0
ALIVE_S: Final = 15.0
"""A worker that was not seen for this long has no share any more."""
_FORGOTTEN_S: Final = 300

_BEAT = """
    WITH beat AS (
        INSERT INTO spine.workers AS w (id, host, pid, software_version) VALUES ($1, $2, $3, $4)
        ON CONFLICT (id) DO UPDATE SET seen_at = now() RETURNING id
    ), forgotten AS (
        DELETE FROM spine.workers WHERE id <> $1 AND seen_at < now() - make_interval(secs => $6)
    )
    SELECT id FROM spine.workers WHERE seen_at > now() - make_interval(secs => $5) UNION SELECT id FROM beat
"""


class Heartbeat:
    """Beats every few seconds and remembers who else does."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", worker_id: str) -> None:
        self._pool = pool
        self.worker_id = worker_id
        self.live_workers: frozenset[str] = frozenset({worker_id})
        self.changed = asyncio.Event()
        self._beating: asyncio.Task[None] | None = None

    async def beat(self) -> None:
        """Say that I am here and see who is; `changed` is set when the list is another one."""
        rows = await self._pool.fetch(
            _BEAT, self.worker_id, socket.gethostname(), os.getpid(), __version__, ALIVE_S, float(_FORGOTTEN_S)
        )
        live_workers = frozenset(row["id"] for row in rows)
        if live_workers != self.live_workers:
            self.live_workers = live_workers
            self.changed.set()

    async def step(self) -> None:
        """One beat and the pause after it."""
        # A beat that has begun is let end: cut off, it could still be written after my name was taken off.
        self._beating = asyncio.create_task(self.beat())
        await asyncio.shield(self._beating)
        await asyncio.sleep(HEARTBEAT_S)

    async def deregister(self) -> None:
        """Take my name off the list, so that the others share what was mine at their next beat."""
        if self._beating is not None:
            await asyncio.wait([self._beating])
        await self._pool.execute("DELETE FROM spine.workers WHERE id = $1", self.worker_id)
