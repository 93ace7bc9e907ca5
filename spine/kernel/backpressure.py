"""Backpressure: accepting stops with 429 while too many events wait in the outbox."""

import asyncio
from typing import Final

import asyncpg
import structlog

from spine.kernel.errors import TooManyRequests

_READ_EVERY_S: Final = 1.0

_log = structlog.get_logger(__name__)


class Backpressure:
    """Holds the outbox's depth, read every second. `max_outbox` is SPINE_MAX_OUTBOX, in events."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", max_outbox: int) -> None:
        self._pool = pool
        self._max_outbox = max_outbox
        self._depth = 0

    def refuse_when_full(self) -> None:
        """Raises TooManyRequests `backlog_full` while more events than `max_outbox` wait for the relay."""
        if self._depth > self._max_outbox:
            raise TooManyRequests(
                f"{self._depth} events wait for their endpoints already", retry_after_s=2, code="backlog_full"
            )

    async def watch(self) -> None:
        """Read the outbox's depth every second, until cancelled."""
        while True:
            try:
                self._depth = await self._pool.fetchval("SELECT spine.outbox_depth()")
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                _log.warning("outbox depth not read", error=repr(error))
            await asyncio.sleep(_READ_EVERY_S)
