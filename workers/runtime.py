"""What one worker process holds, from start to stop: pools, the way out, the bell, and the lines at work."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final

import asyncpg
import structlog
from ulid import ULID

from spine import __version__, metrics
from spine.bell import Bell, Kind, open_redis
from spine.database import open_pool
from spine.egress import Egress
from spine.settings import BellSettings, DatabaseSettings, EgressSettings, VaultSettings, WorkSettings
from spine.vault import Vault
from workers.line import Hearing, Line, LineMaker, Tools, keep_going
from workers.roster import Roster

POOL_LEAST: Final = 20
"""Each loop keeps a connection of its own: with a smaller pool the heartbeat and the endpoints would wait for ever."""
_CONNECT_PAUSE_S: Final = 1.0

_log = structlog.get_logger("workers.runtime")


class Runtime:
    """Starts the lines as soon as the database answers, and drains them at the end."""

    def __init__(
        self,
        *,
        database: DatabaseSettings,
        bells: BellSettings,
        work: WorkSettings,
        egress: EgressSettings,
        vault: VaultSettings,
        hearing: Hearing,
        lines: Sequence[LineMaker],
    ) -> None:
        self._database = database
        self._bells = bells
        self._work = work
        self._egress = egress
        self._vault = Vault.from_text(vault.encryption_key.get_secret_value())
        self._hearing = hearing
        hearing.rang = self._rang
        hearing.regained = lambda: self._look("relay", "deliver", "send")
        self._makers = lines
        self._lines: list[Line] = []
        self._held = AsyncExitStack()
        self._task: asyncio.Task[None] | None = None
        self.worker_id = f"{socket.gethostname()}-{ULID()}"
        self._bell: Bell | None = None
        self.roster: Roster | None = None

    async def start(self) -> None:
        """Begin; returns at once."""
        if self._work.metrics_port:
            self._serve_metrics(self._work.metrics_port + self._work.worker_index)
        self._task = asyncio.create_task(self._run())

    async def hear(self, kind: Kind) -> None:
        """A bell came as a job: take note of it, then look."""
        if self._bell is not None:
            await self._bell.heard(kind)
        self._rang(kind)

    def _rang(self, kind: Kind) -> None:
        metrics.bells_heard(kind).inc()
        self._look(kind)

    def _look(self, *kinds: Kind) -> None:
        for line in self._lines:
            for kind in kinds:
                line.hear(kind)

    async def stop(self) -> None:
        """Drain the lines, go off the roster, close everything."""
        start_s = time.monotonic()
        await asyncio.gather(*(line.drain(self._work.drain_s) for line in self._lines), return_exceptions=True)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self.roster is not None:
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                async with asyncio.timeout(2):
                    await self.roster.leave()
        if self._bell is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2):
                    await self._bell.close()
        await self._held.aclose()
        _log.info("worker stopped", worker=self.worker_id, drained_s=round(time.monotonic() - start_s, 3))

    async def _run(self) -> None:
        pool = await self._open_pool()
        # Everything is written by then; the loops' connections need no farewell.
        self._held.callback(pool.terminate)
        egress = await self._held.enter_async_context(Egress(self._egress))
        redis = open_redis(self._bells.redis_url)
        self._held.push_async_callback(redis.aclose)
        self._bell = bell = Bell(redis)
        self.roster = roster = Roster(pool, self.worker_id)
        tools = Tools(
            work=self._work,
            worker_id=self.worker_id,
            pool=pool,
            egress=egress,
            bell=bell,
            vault=self._vault,
            roster=roster,
            hearing=self._hearing,
        )
        self._lines = [maker(tools) for maker in self._makers]
        _log.info("worker started", worker=self.worker_id, version=__version__)
        async with asyncio.TaskGroup() as at_work:
            at_work.create_task(keep_going("heartbeat", self._beat))
            for line in self._lines:
                at_work.create_task(line.run())

    async def _beat(self) -> None:
        assert self.roster is not None
        metrics.observe_worker(self.worker_id, __version__)
        await self.roster.step()

    async def _open_pool(self) -> "asyncpg.Pool[asyncpg.Record]":
        warned = False
        while True:
            try:
                return await open_pool(
                    self._database.database_url,
                    "spine_worker",
                    "spine worker",
                    max(self._database.database_pool_size, POOL_LEAST),
                )
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
                if not warned:
                    _log.warning("waiting for the database", error=repr(error))
                    warned = True
                await asyncio.sleep(_CONNECT_PAUSE_S)

    def _serve_metrics(self, port: int) -> None:
        try:
            _, close = metrics.serve(port, self._work.metrics_host)
        except OSError as error:
            _log.warning("no metrics: the port is taken", port=port, error=repr(error))
        else:
            self._held.callback(close)
