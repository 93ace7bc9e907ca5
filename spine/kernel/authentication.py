"""Authentication: from the Authorization header to a workspace, an environment and scopes (requirements P-01, P-02)."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import asyncpg
import structlog

from spine.kernel.database_clock import DatabaseClock
from spine.kernel.errors import Forbidden, Unauthenticated
from spine.kernel.events import Actor
from spine.kernel.key_lookup import KeyLookup, SiteOf
from spine.kernel.keys import Env, is_well_formed, key_hash

CACHE_S: Final = 2.0
"""Seconds that a key stays cached. A revocation is in force in every process within this time."""
_MAX_CACHED_KEYS: Final = 10_000
_FLUSH_EVERY_S: Final = 10.0
_NOT_CONFIRMED: Final = (
    "a live key works once the address that signed up is confirmed: follow the mail to it, or ask the operator for"
    " `spine organisations confirm`; the test key works meanwhile"
)

INCLUDED_IN: Final[Mapping[str, tuple[str, ...]]] = {
    "tickets:triage": ("tickets:write",),
    "tickets:read": ("tickets:triage",),
}
"""The scopes that include a scope. Who triages reads the tickets; who writes them may triage too (T-12)."""

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
    confirmed: bool
    """False for a live key whose organisation has not confirmed its e-mail address."""

    @property
    def actor(self) -> Actor:
        """The caller as the actor of events and timeline entries."""
        return Actor(type="api_key", id=self.key_id)

    def may(self, scope: str) -> bool:
        """True if the key has the scope, one that includes it, its whole family (`crm:*`) or everything (`*`)."""
        return bool({"*", scope, scope.partition(":")[0] + ":*", *INCLUDED_IN.get(scope, ())} & self.scopes)

    def require(self, scope: str) -> None:
        """Raises Forbidden unless the key has the scope."""
        if not self.may(scope):
            raise Forbidden(f"this key lacks the scope {scope}; it has: {', '.join(sorted(self.scopes)) or 'none'}")


@dataclass(frozen=True, slots=True)
class InternalCaller(Caller):
    """A caller without a key: a job, or a person on a hosted page. Its actor says who it is."""

    acts_as: Actor

    @property
    def actor(self) -> Actor:
        """The actor of events and timeline entries."""
        return self.acts_as


def internal_caller(workspace_id: str, organisation_id: str, env: Env, actor: Actor) -> Caller:
    """Return a caller in this workspace that has no key and no scopes. Only code of ours may act for it."""
    return InternalCaller(actor.id, workspace_id, organisation_id, env, frozenset(), None, True, actor)


class Authenticator:
    """Reads callers by their keys, caches them for CACHE_S seconds, and records when keys are used."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", clock: DatabaseClock | None = None) -> None:
        self._pool = pool
        self._clock = clock or DatabaseClock()
        self._lookup = KeyLookup(pool)
        self._cache: dict[str, tuple[float, Caller]] = {}
        self._used_key_ids: set[str] = set()
        self._generation = 0

    async def caller(self, authorization: str | None, site_of: SiteOf = lambda: "") -> Caller:
        """Return the caller of an Authorization header. Raises Unauthenticated, and Forbidden `email_not_confirmed`."""
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
            caller = await self._fetch(key, site_of)
            if generation == self._generation:  # else a key was revoked during the query, and the row may be stale
                self._remember(key, now, caller)
        if not caller.confirmed:
            raise Forbidden(_NOT_CONFIRMED, code="email_not_confirmed")
        self._used_key_ids.add(caller.key_id)
        return caller

    def _remember(self, key: str, now: float, caller: Caller) -> None:
        self._cache.pop(key, None)
        if len(self._cache) >= _MAX_CACHED_KEYS:
            del self._cache[next(iter(self._cache))]  # the one that was read longest ago
        self._cache[key] = (now, caller)

    async def _fetch(self, key: str, site_of: SiteOf) -> Caller:
        row = await self._lookup.find(key_hash(key), site_of)
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
            confirmed=row["confirmed"],
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
