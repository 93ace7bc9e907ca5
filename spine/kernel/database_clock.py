"""The clock of Postgres, as this process estimates it. Due times are compared with that clock alone, so wakeups follow it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg
import structlog

from spine.kernel.metrics import clock_offset

_READ: Final = "SELECT extract(epoch FROM clock_timestamp())::float8"
_SAMPLES: Final = 3
_INTERVAL_S: Final = 5.0

_log = structlog.get_logger(__name__)


class DatabaseClock:
    """Tells a time that Postgres' clock has certainly reached, and is close to it: late by a network delay at most.

    It counts on the monotonic clock, so that steps of this machine's own clock do not matter. Before the first
    measurement it is this machine's clock.
    """

    def __init__(self) -> None:
        self._base_s = time.time() - time.monotonic()
        self._measured = False

    def now_s(self) -> float:
        """Return Postgres' time in seconds since the epoch."""
        return self._base_s + time.monotonic()

    def now_ms(self) -> int:
        """Return Postgres' time in milliseconds since the epoch."""
        return int(self.now_s() * 1000)

    def now(self) -> datetime:
        """Return Postgres' time."""
        return datetime.fromtimestamp(self._base_s + time.monotonic(), UTC)

    @property
    def offset_s(self) -> float:
        """Seconds that Postgres' clock is ahead of this machine's."""
        return self.now_s() - time.time()

    def observe(self, before_s: float, database_s: float, after_s: float) -> None:
        """Take a measurement: Postgres' time, read between two times of the monotonic clock.

        The true base is between `database_s - after_s` and `database_s - before_s`. The best lower bound so far is kept
        while it can be true.
        """
        low_s, high_s = database_s - after_s, database_s - before_s
        if not (self._measured and low_s <= self._base_s <= high_s):
            self._base_s, self._measured = low_s, True

    async def measure(self, fetchval: Callable[[str], Awaitable[Any]]) -> None:
        """Read Postgres' clock a few times, since only the quickest answers are exact."""
        for _ in range(_SAMPLES):
            before_s = time.monotonic()
            self.observe(before_s, await fetchval(_READ), time.monotonic())
        clock_offset(self.offset_s)

    async def follow(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        """Measure every few seconds, until cancelled."""
        while True:
            try:
                await self.measure(pool.fetchval)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                _log.warning("the database's clock is not measured", error=repr(error))
            await asyncio.sleep(_INTERVAL_S)
