"""The arq worker that bells come through: arq's own, but Redis may come and go as it likes.

As arq ships it, a worker dies of a Redis restart, cannot start without Redis, and counts on it to stop. Here bells are
a convenience: while Redis is away the process goes on (`WakeupStatus.offline` makes the lines look at Postgres more often).
"""

import asyncio
import contextlib
import logging
from typing import Any, Final

import arq.worker
import structlog
from arq.connections import ArqRedis, create_pool
from redis.exceptions import RedisError

from spine.kernel.wakeups import WakeupKind, receive_wakeup, remove_job
from workers.pipeline import WakeupStatus

_PAUSE_S: Final = 0.5
_RECEIVE_TIMEOUT_S: Final = 5.0
_CLOSE_S: Final = 2.0
_AWAY: Final = (RedisError, OSError, asyncio.TimeoutError)

_log = structlog.get_logger(__name__)


class WakeupWorker(arq.worker.Worker):
    """`ctx` must hold `wakeup_status`. `on_startup` runs at once, whether Redis is there or not."""

    _reported_offline = False
    _queue: asyncio.Lock
    """Held while arq looks at its queue, or a job that was heard of is taken out of it: neither meets the other's half."""

    async def main(self) -> None:
        """Serve the lines, and hear bells whenever there is a Redis to hear them from."""
        logging.getLogger("arq").setLevel(logging.ERROR)
        wakeup_status: WakeupStatus = self.ctx["hearing"]
        if self.on_startup:
            await self.on_startup(self.ctx)
        while True:
            try:
                await self._listen(wakeup_status)
            except* _AWAY as errors:
                if not self._reported_offline:
                    _log.warning("no bells: Redis is away", error=repr(errors.exceptions[0]))
                self._reported_offline = wakeup_status.offline = True
            if (task := asyncio.current_task()) and task.cancelling():
                raise asyncio.CancelledError  # it came as Redis went away, and the group of errors stands in its place
            await asyncio.sleep(_PAUSE_S)

    async def _listen(self, wakeup_status: WakeupStatus) -> None:
        """Until Redis goes away."""
        if self._pool is None:
            assert self.redis_settings is not None
            self._pool = await create_pool(
                self.redis_settings,
                job_deserializer=self.job_deserializer,
                job_serializer=self.job_serializer,
                default_queue_name=self.queue_name or "",
                expires_extra_ms=self.expires_extra_ms,
            )
            self.ctx["redis"] = self._pool
        self._queue = asyncio.Lock()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._poll(wakeup_status))
            tasks.create_task(self._receive_loop(self._pool, wakeup_status, tasks))

    async def _poll(self, wakeup_status: WakeupStatus) -> None:
        """arq's own way, for what comes later; and the proof that Redis is there."""
        while True:
            async with self._queue:
                await self._poll_iteration()
            if wakeup_status.offline:
                wakeup_status.offline = False
                wakeup_status.on_reconnect()
            if self._reported_offline:
                _log.warning("bells are heard again")
                self._reported_offline = False
            await asyncio.sleep(self.poll_delay_s)

    async def _receive_loop(self, redis: ArqRedis, wakeup_status: WakeupStatus, tasks: asyncio.TaskGroup) -> None:
        """Nothing else is done here, so that whoever rings finds somebody at the door."""
        while True:
            wakeups = await receive_wakeup(redis, _RECEIVE_TIMEOUT_S)
            if wakeups is not None:
                wakeup_status.on_wakeup(wakeups[0])
                tasks.create_task(self._take(redis, *wakeups))

    async def _take(self, redis: ArqRedis, kind: WakeupKind, job_id: str) -> None:
        async with self._queue:
            await remove_job(redis, kind, job_id)

    async def close(self) -> None:
        """Stop the lines first; what Redis has to say to that does not matter."""
        if self.on_shutdown:
            await self.on_shutdown(self.ctx)
        tasks: list[asyncio.Task[Any]] = list(self.tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._pool is not None:
            with contextlib.suppress(*_AWAY):
                async with asyncio.timeout(_CLOSE_S):
                    await self._pool.close(close_connection_pool=True)
            self._pool = None
