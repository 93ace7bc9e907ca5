"""The resources of one worker process, from start to stop: pool, HTTP client, wakeups, heartbeat and pipelines."""

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

from spine import __version__
from spine.kernel import metrics
from spine.kernel.database import open_pool
from spine.kernel.http_client import HttpClient
from spine.kernel.redis_client import open_redis
from spine.kernel.settings import DatabaseSettings, EgressSettings, VaultSettings, WakeupSettings, WorkSettings
from spine.kernel.vault import Vault
from spine.kernel.wakeups import WakeupKind, Wakeups
from workers.heartbeat import Heartbeat
from workers.pipeline import Pipeline, PipelineFactory, WakeupStatus, WorkerContext, run_forever

POOL_MIN_SIZE: Final = 24
"""Each loop keeps a connection. With a smaller pool the heartbeat and the endpoint cache would wait for ever."""
_CONNECT_PAUSE_S: Final = 1.0

_log = structlog.get_logger(__name__)


class Runtime:
    """Starts the pipelines as soon as the database is reachable, and drains them at the end."""

    def __init__(
        self,
        *,
        database: DatabaseSettings,
        wakeup_settings: WakeupSettings,
        work: WorkSettings,
        egress: EgressSettings,
        vault: VaultSettings,
        public_url: str,
        wakeup_status: WakeupStatus,
        pipelines: Sequence[PipelineFactory],
    ) -> None:
        self._database = database
        self._wakeup_settings = wakeup_settings
        self._work = work
        self._egress = egress
        self._vault = Vault.from_text(vault.encryption_key.get_secret_value())
        self._public_url = public_url
        self._wakeup_status = wakeup_status
        wakeup_status.on_wakeup = self._receive
        wakeup_status.on_reconnect = lambda: self._wake_pipelines("relay", "deliver", "send", "job")
        self._factories = pipelines
        self._pipelines: list[Pipeline] = []
        self._resources = AsyncExitStack()
        self._task: asyncio.Task[None] | None = None
        self.worker_id = f"{socket.gethostname()}-{ULID()}"
        self._wakeups: Wakeups | None = None
        self.heartbeat: Heartbeat | None = None

    async def start(self) -> None:
        """Start in the background; returns at once."""
        if self._work.metrics_port:
            self._serve_metrics(self._work.metrics_port + self._work.worker_index)
        self._task = asyncio.create_task(self._run())

    async def receive_job(self, kind: WakeupKind) -> None:
        """Acknowledge a wakeup that arrived as an arq job, then wake the pipelines."""
        if self._wakeups is not None:
            await self._wakeups.acknowledge(kind)
        self._receive(kind)

    def _receive(self, kind: WakeupKind) -> None:
        metrics.wakeups_received(kind).inc()
        self._wake_pipelines(kind)

    def _wake_pipelines(self, *kinds: WakeupKind) -> None:
        for pipeline in self._pipelines:
            for kind in kinds:
                pipeline.on_wakeup(kind)

    async def stop(self) -> None:
        """Drain the pipelines, delete the heartbeat, close everything."""
        start_s = time.monotonic()
        await asyncio.gather(
            *(pipeline.drain(self._work.drain_s) for pipeline in self._pipelines), return_exceptions=True
        )
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self.heartbeat is not None:
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                async with asyncio.timeout(2):
                    await self.heartbeat.deregister()
        if self._wakeups is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2):
                    await self._wakeups.close()
        await self._resources.aclose()
        _log.info("worker stopped", worker=self.worker_id, drained_s=round(time.monotonic() - start_s, 3))

    async def _run(self) -> None:
        pool = await self._open_pool()
        # Everything is committed by then, so the loops' connections need no orderly close.
        self._resources.callback(pool.terminate)
        clock = self._wakeup_status.clock
        http_client = await self._resources.enter_async_context(HttpClient(self._egress, now=clock.now))
        redis = open_redis(self._wakeup_settings.redis_url)
        self._resources.push_async_callback(redis.aclose)
        self._wakeups = wakeups = Wakeups(redis, clock)
        self.heartbeat = heartbeat = Heartbeat(pool, self.worker_id, clock)
        context = WorkerContext(
            work=self._work,
            worker_id=self.worker_id,
            pool=pool,
            http_client=http_client,
            wakeups=wakeups,
            vault=self._vault,
            heartbeat=heartbeat,
            wakeup_status=self._wakeup_status,
            public_url=self._public_url,
        )
        self._pipelines = [factory(context) for factory in self._factories]
        _log.info("worker started", worker=self.worker_id, version=__version__)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(run_forever("heartbeat", self._beat))
            for pipeline in self._pipelines:
                tasks.create_task(pipeline.run())

    async def _beat(self) -> None:
        assert self.heartbeat is not None
        metrics.observe_worker(self.worker_id, __version__)
        await self.heartbeat.step()

    async def _open_pool(self) -> "asyncpg.Pool[asyncpg.Record]":
        warned = False
        while True:
            try:
                pool = await open_pool(
                    self._database.database_url,
                    "spine_worker",
                    "spine worker",
                    max(self._database.database_pool_size, POOL_MIN_SIZE),
                )
                try:
                    await self._wakeup_status.clock.measure(pool.fetchval)
                except BaseException:
                    pool.terminate()
                    raise
                return pool
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
            self._resources.callback(close)
