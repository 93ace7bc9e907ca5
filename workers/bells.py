"""The arq worker that bells come through: arq's own, but Redis may come and go as it likes.

As arq ships it, a worker dies of a Redis restart, cannot start without Redis, and counts on it to stop. Here bells are
a convenience: while Redis is away the process goes on (`Hearing.deaf` makes the lines look at Postgres more often).
"""

import asyncio
import contextlib
import logging
import time
from typing import Any, Final

import arq.worker
import structlog
from arq.connections import create_pool
from redis.exceptions import RedisError

from spine.bell import take_job, wait_at_doors
from workers.line import Hearing

_PAUSE_S: Final = 0.5
_CLOSE_S: Final = 2.0
_AWAY: Final = (RedisError, OSError, asyncio.TimeoutError)

_log = structlog.get_logger("workers.bells")


class BellWorker(arq.worker.Worker):
    """`ctx` must hold `hearing`. `on_startup` runs at once, whether Redis is there or not."""

    _told_away = False

    async def main(self) -> None:
        """Serve the lines, and hear bells whenever there is a Redis to hear them from."""
        logging.getLogger("arq").setLevel(logging.ERROR)
        hearing: Hearing = self.ctx["hearing"]
        if self.on_startup:
            await self.on_startup(self.ctx)
        while True:
            try:
                await self._listen(hearing)
            except _AWAY as error:
                if not self._told_away:
                    _log.warning("no bells: Redis is away", error=repr(error))
                self._told_away = hearing.deaf = True
                await asyncio.sleep(_PAUSE_S)

    async def _listen(self, hearing: Hearing) -> None:
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
        next_poll_s = 0.0
        while True:
            if time.monotonic() >= next_poll_s:
                await self._poll_iteration()
                next_poll_s = time.monotonic() + self.poll_delay_s
            if hearing.deaf:
                hearing.deaf = False
                hearing.regained()
            if self._told_away:
                _log.warning("bells are heard again")
                self._told_away = False
            # Redis takes 0 for ever.
            bell = await wait_at_doors(self._pool, max(0.001, next_poll_s - time.monotonic()))
            if bell is not None:
                hearing.rang(bell[0])
                await take_job(self._pool, *bell)

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
