"""The arq worker that bells come through: arq's own, but Redis may come and go as it likes.

As arq ships it, a worker dies of a Redis restart, cannot start without Redis, and counts on it to stop. Here bells are
a convenience: while Redis is away the process goes on (`Hearing.deaf` makes the lines look at Postgres more often).
"""

import asyncio
import contextlib
import logging
from typing import Any, Final

import arq.worker
import structlog
from arq.connections import ArqRedis, create_pool
from redis.exceptions import RedisError

from spine.bell import Kind, take_job, wait_at_doors
from workers.line import Hearing

_PAUSE_S: Final = 0.5
_AT_DOOR_S: Final = 5.0
_CLOSE_S: Final = 2.0
_AWAY: Final = (RedisError, OSError, asyncio.TimeoutError)

_log = structlog.get_logger("workers.bells")


class BellWorker(arq.worker.Worker):
    """`ctx` must hold `hearing`. `on_startup` runs at once, whether Redis is there or not."""

    _told_away = False
    _queue: asyncio.Lock
    """Held while arq looks at its queue, or a job that was heard of is taken out of it: neither meets the other's half."""

    async def main(self) -> None:
        """Serve the lines, and hear bells whenever there is a Redis to hear them from."""
        logging.getLogger("arq").setLevel(logging.ERROR)
        hearing: Hearing = self.ctx["hearing"]
        if self.on_startup:
            await self.on_startup(self.ctx)
        while True:
            try:
                await self._listen(hearing)
            except* _AWAY as errors:
                if not self._told_away:
                    _log.warning("no bells: Redis is away", error=repr(errors.exceptions[0]))
                self._told_away = hearing.deaf = True
            if (task := asyncio.current_task()) and task.cancelling():
                raise asyncio.CancelledError  # it came as Redis went away, and the group of errors stands in its place
            await asyncio.sleep(_PAUSE_S)

    async def _listen(self, hearing: Hearing) -> None:
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
        async with asyncio.TaskGroup() as ears:
            ears.create_task(self._poll(hearing))
            ears.create_task(self._stand_at_doors(self._pool, hearing, ears))

    async def _poll(self, hearing: Hearing) -> None:
        """arq's own way, for what comes later; and the proof that Redis is there."""
        while True:
            async with self._queue:
                await self._poll_iteration()
            if hearing.deaf:
                hearing.deaf = False
                hearing.regained()
            if self._told_away:
                _log.warning("bells are heard again")
                self._told_away = False
            await asyncio.sleep(self.poll_delay_s)

    async def _stand_at_doors(self, redis: ArqRedis, hearing: Hearing, ears: asyncio.TaskGroup) -> None:
        """Nothing else is done here, so that whoever rings finds somebody at the door."""
        while True:
            bell = await wait_at_doors(redis, _AT_DOOR_S)
            if bell is not None:
                hearing.rang(bell[0])
                ears.create_task(self._take(redis, *bell))

    async def _take(self, redis: ArqRedis, kind: Kind, job_id: str) -> None:
        async with self._queue:
            await take_job(redis, kind, job_id)

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
