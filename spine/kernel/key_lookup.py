"""Look-ups of API keys in Postgres: one query at a time for all keys that wait, so that a flood of keys is no flood of queries.

A key that is looked up while no query runs is looked up at once. The others wait for the next query, together. Keys that do
not exist are remembered for a while: a key is random, so one that is unknown now will not be made later.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import asyncpg

from spine.kernel.errors import TooManyRequests

MAX_BATCH: Final = 500
"""Keys of one query."""
MAX_WAITING_PER_SITE: Final = 32
"""Keys of one address that wait for the next query; more are refused."""
MAX_UNKNOWN: Final = 10_000
_UNKNOWN_S: Final = 30.0
_FIND: Final = "SELECT * FROM spine.keys_find($1::bytea[])"

Row = asyncpg.Record
SiteOf = Callable[[], str]
"""Returns the address that a look-up counts for. It is called only for a key that is not cached."""


class KeyLookup:
    """Finds the owners of keys by their hashes."""

    def __init__(self, pool: "asyncpg.Pool[Row]") -> None:
        self._pool = pool
        self._waiting: dict[bytes, tuple[str, asyncio.Future[Row | None]]] = {}
        self._waiting_of_site: Counter[str] = Counter()
        self._unknown_until_s: dict[bytes, float] = {}
        self._queries: asyncio.Task[None] | None = None

    async def find(self, key_hash: bytes, site_of: SiteOf) -> Row | None:
        """Return the row of `keys_find`, or None. Raises TooManyRequests if too many keys of the address wait already."""
        if self._unknown_until_s.get(key_hash, 0.0) > time.monotonic():
            return None
        if key_hash not in self._waiting:
            site = site_of()
            if self._waiting_of_site[site] >= MAX_WAITING_PER_SITE:
                raise TooManyRequests(
                    "this address sends too many different keys at once", retry_after_s=1, code="too_many_keys"
                )
            self._waiting_of_site[site] += 1
            self._waiting[key_hash] = site, asyncio.get_running_loop().create_future()
        found = self._waiting[key_hash][1]
        if self._queries is None:
            self._queries = asyncio.create_task(self._query_while_any_waits())
        # A caller that leaves must not take the answer from another one with the same key.
        return await asyncio.shield(found)

    async def _query_while_any_waits(self) -> None:
        try:
            while self._waiting:
                await self._query()
        finally:
            self._queries = None

    async def _query(self) -> None:
        # A key that comes from here on waits for the next query, which sees what was revoked meanwhile.
        batch = {key_hash: self._waiting.pop(key_hash) for key_hash in list(self._waiting)[:MAX_BATCH]}
        for site, _ in batch.values():
            self._waiting_of_site[site] -= 1
        self._waiting_of_site = +self._waiting_of_site
        try:
            rows = {row["hash"]: row for row in await self._pool.fetch(_FIND, list(batch))}
        except Exception as error:  # each caller gets it, as if it had asked alone
            for _, found in batch.values():
                found.set_exception(error)
                found.exception()  # callers may have left
            return
        for key_hash, (_, found) in batch.items():
            found.set_result(rows.get(key_hash))
            if key_hash not in rows:
                self._remember_unknown(key_hash)

    def _remember_unknown(self, key_hash: bytes) -> None:
        if len(self._unknown_until_s) >= MAX_UNKNOWN:
            del self._unknown_until_s[next(iter(self._unknown_until_s))]
        self._unknown_until_s[key_hash] = time.monotonic() + _UNKNOWN_S
