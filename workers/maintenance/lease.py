"""A lease: the right to do a kind of work, held by one worker at a time. It ends by Postgres' clock unless it is renewed.

A lock of a session would last as long as the connection of a frozen process. A lease passes to another worker when its
time is over. The former holder does not know that until it asks, so work under a lease must be harmless if two do it.
"""

import time
from datetime import timedelta
from typing import Final

import asyncpg

_TAKE: Final = """
    INSERT INTO spine.leases AS l (name, holder, leased_until) VALUES ($1, $2, clock_timestamp() + $3::interval)
    ON CONFLICT (name) DO UPDATE SET holder = EXCLUDED.holder, leased_until = EXCLUDED.leased_until
     WHERE l.holder = EXCLUDED.holder OR l.leased_until < clock_timestamp()
    RETURNING true
"""
_GIVE_BACK: Final = "DELETE FROM spine.leases WHERE name = $1 AND holder = $2"


class LeaseLostError(Exception):
    """Another worker holds the lease."""


class Lease:
    """The lease `name`, for the worker `holder`."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", name: str, holder: str, seconds: float) -> None:
        self._pool = pool
        self._name = name
        self._holder = holder
        self._seconds = seconds
        self._renew_at_s = 0.0
        self._given_back = False

    async def take(self) -> bool:
        """Take the lease or renew it. Returns whether this worker holds it now."""
        if self._given_back:
            return False
        start_s = time.monotonic()
        held = await self._pool.fetchval(_TAKE, self._name, self._holder, timedelta(seconds=self._seconds))
        self._renew_at_s = start_s + self._seconds / 3 if held else 0.0
        return bool(held)

    async def renew(self) -> None:
        """Renew the lease, before each batch of a long task, if a third of its time has passed. Raises LeaseLostError."""
        if time.monotonic() >= self._renew_at_s and not await self.take():
            raise LeaseLostError(self._name)

    async def give_back(self) -> None:
        """End the lease for good, so that another worker need not wait for its end."""
        self._given_back = True
        self._renew_at_s = 0.0
        await self._pool.execute(_GIVE_BACK, self._name, self._holder)
