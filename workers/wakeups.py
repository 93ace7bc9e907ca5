"""The arq worker that receives wakeups. It extends arq's own worker so that Redis may be unreachable at any time.

arq's own worker ends when Redis restarts, cannot start without Redis, and needs Redis to stop. Here wakeups are
optional: while Redis is unreachable the process goes on, and `WakeupStatus.offline` makes the pipelines poll Postgres
more often.
"""

import asyncio
import contextlib
import logging
from typing import Any, Final

import arq.worker
import structlog
from arq.connections import ArqRedis
from redis.asyncio import Redis
from redis.exceptions import RedisError

from spine.kernel.redis_client import TIMEOUT_S, open_client
from spine.kernel.wakeups import WakeupKind, receive_wakeup, remove_job
from workers.pipeline import WakeupStatus

_PAUSE_S: Final = 0.5
_RECEIVE_S: Final = 5.0
_CLOSE_S: Final = 2.0
_REDIS_ERRORS: Final = (RedisError, OSError, asyncio.TimeoutError)

_log = structlog.get_logger(__name__)


class WakeupWorker(arq.worker.Worker):
    """`ctx` must hold a `wakeup_status`. `on_startup` runs at once, with or without Redis."""

    _reported_offline = False
    _receiver: Redis
    """A client of its own for the call that blocks in Redis, and so needs a longer time-out."""
    _queue_lock: asyncio.Lock
    """Held while arq polls its queue, and while a received wakeup's job is removed: arq never sees a half-removed job."""

    async def main(self) -> None:
        """Run the pipelines, and receive wakeups whenever Redis is reachable."""
        logging.getLogger("arq").setLevel(logging.ERROR)
        wakeup_status: WakeupStatus = self.ctx["wakeup_status"]
        # arq compares the times of its jobs with this machine's clock, and has no other way to replace it.
        arq.worker.timestamp_ms = wakeup_status.clock.now_ms  # type: ignore[attr-defined]
        if self.on_startup:
            await self.on_startup(self.ctx)
        while True:
            try:
                # In a task of its own: a failed TaskGroup leaves its task marked as cancelled before Python 3.13.
                await asyncio.create_task(self._listen(wakeup_status))
            except* _REDIS_ERRORS as errors:
                if not self._reported_offline:
                    _log.warning("no wakeups: Redis is unreachable", error=repr(errors.exceptions[0]))
                self._reported_offline = wakeup_status.offline = True
            _raise_if_cancelled()  # the error group of Redis may have replaced the cancellation
            await asyncio.sleep(_PAUSE_S)

    async def _listen(self, wakeup_status: WakeupStatus) -> None:
        """Receive wakeups until Redis raises an error."""
        if self._pool is None:
            assert self.redis_settings is not None
            # arq's own `create_pool` sets no time-out: a Redis that hangs would hang this worker.
            self._pool = open_client(
                self.redis_settings,
                ArqRedis,
                job_deserializer=self.job_deserializer,
                job_serializer=self.job_serializer,
                default_queue_name=self.queue_name or "",
                expires_extra_ms=self.expires_extra_ms,
            )
            self._receiver = open_client(self.redis_settings, Redis, _RECEIVE_S + TIMEOUT_S)
            self.ctx["redis"] = self._pool
        self._queue_lock = asyncio.Lock()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._poll(wakeup_status))
            tasks.create_task(self._receive_loop(self._pool, self._receiver, wakeup_status, tasks))

    async def _poll(self, wakeup_status: WakeupStatus) -> None:
        """Poll arq's queue, for wakeups that are due later. A successful poll shows that Redis is reachable."""
        while True:
            async with self._queue_lock:
                await self._poll_iteration()
            _raise_if_cancelled()
            if wakeup_status.offline:
                wakeup_status.offline = False
                wakeup_status.on_reconnect()
            if self._reported_offline:
                _log.warning("wakeups arrive again")
                self._reported_offline = False
            await asyncio.sleep(self.poll_delay_s)

    async def _receive_loop(
        self, redis: ArqRedis, receiver: Redis, wakeup_status: WakeupStatus, tasks: asyncio.TaskGroup
    ) -> None:
        """Block on the wakeup lists. Does nothing else, so that a new wakeup finds a blocked receiver."""
        while True:
            received = await receive_wakeup(receiver, _RECEIVE_S)
            _raise_if_cancelled()
            if received is not None:
                wakeup_status.on_wakeup(received[0])
                tasks.create_task(self._remove_job(redis, *received))

    async def _remove_job(self, redis: ArqRedis, kind: WakeupKind, job_id: str) -> None:
        async with self._queue_lock:
            await remove_job(redis, kind, job_id)

    async def close(self) -> None:
        """Stop the pipelines first. Errors of Redis are ignored."""
        if self.on_shutdown:
            await self.on_shutdown(self.ctx)
        tasks: list[asyncio.Task[Any]] = list(self.tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._pool is not None:
            with contextlib.suppress(*_REDIS_ERRORS):
                async with asyncio.timeout(_CLOSE_S):
                    await self._pool.aclose(close_connection_pool=True)
                    await self._receiver.aclose()
            self._pool = None


def _raise_if_cancelled() -> None:
    """Raise CancelledError if the current task was cancelled.

    The client of Redis drops a cancellation that arrives while one of its time-outs ends. So a worker that was frozen, and is
    stopped as it goes on, would run for ever.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
