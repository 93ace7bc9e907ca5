"""Authentication: from the Authorization header to a workspace, an environment and scopes (requirements P-01, P-02)."""

import asyncio
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import asyncpg
import structlog

from spine.kernel.database_clock import DatabaseClock
from spine.kernel.errors import Forbidden, Unauthenticated
from spine.kernel.events import Actor
from spine.kernel.keys import Env, is_well_formed, key_hash

CACHE_S: Final = 2.0
"""Seconds that a key stays cached. A revocation is in force in every process within this time."""
_MAX_CACHED_KEYS: Final = 10_000
_FLUSH_EVERY_S: Final = 10.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    """The holder of an API key, in the one workspace that the key belongs to."""

    key_id: str
    workspace_id: str
    organisation_id: str
    env: Env
    scopes: frozenset[str]
    expires_at: datetime | None

    @property
    def actor(self) -> Actor:
        """The caller as the actor of events and timeline entries."""
        return Actor(type="api_key", id=self.key_id)

    def require(self, scope: str) -> None:
        """Raises Forbidden unless the key has the scope, its whole family (`crm:*`) or everything (`*`)."""
        if not ({"*", scope, scope.partition(":")[0] + ":*"} & self.scopes):
            raise Forbidden(f"this key lacks the scope {scope}; it has: {', '.join(sorted(self.scopes)) or 'none'}")


class Authenticator:
    """Reads callers by their keys, caches them for CACHE_S seconds, and records when keys are used."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", clock: DatabaseClock | None = None) -> None:
        self._pool = pool
        self._clock = clock or DatabaseClock()
        self._cache: dict[str, tuple[float, Caller]] = {}
        self._used_key_ids: set[str] = set()
        self._generation = 0

    async def caller(self, authorization: str | None) -> Caller:
        """Return the caller of an Authorization header. Raises Unauthenticated."""
        scheme, _, key = (authorization or "").partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not is_well_formed(key):
            raise Unauthenticated
        now = time.monotonic()
        cached = self._cache.get(key)
        if (
            cached is not None
            and now - cached[0] < CACHE_S
            and (cached[1].expires_at is None or cached[1].expires_at > self._clock.now())
        ):
            caller = cached[1]
        else:
            generation = self._generation
            caller = await self._fetch(key)
            if len(self._cache) >= _MAX_CACHED_KEYS:
                self._cache.clear()
            if generation == self._generation:  # else a key was revoked during the query, and the row may be stale
                self._cache[key] = (now, caller)
        self._used_key_ids.add(caller.key_id)
        return caller

    async def _fetch(self, key: str) -> Caller:
        row = await self._pool.fetchrow("SELECT * FROM spine.key_find($1)", key_hash(key))
        if row is None:
            self._cache.pop(key, None)
            raise Unauthenticated
        return Caller(
            key_id=row["key_id"],
            workspace_id=row["workspace_id"],
            organisation_id=row["organisation_id"],
            env=row["env"],
            scopes=frozenset(row["scopes"]),
            expires_at=row["expires_at"],
        )

    def clear_cache(self) -> None:
        """Drop every cached caller. Called when this process itself rolls or revokes a key."""
        self._cache.clear()
        self._generation += 1

    async def track_key_use(self) -> None:
        """Flush key use every 10 s until cancelled, so that `last_used_at` needs no write per request."""
        while True:
            await asyncio.sleep(_FLUSH_EVERY_S)
            try:
                await self.flush_key_use()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                _log.warning("key use not noted", error=repr(error))

    async def flush_key_use(self) -> None:
        """Write `last_used_at` of the keys that were used since the last flush."""
        used, self._used_key_ids = self._used_key_ids, set()
        if used:
            await self._pool.execute("SELECT spine.keys_touch($1::text[])", list(used))
