"""Who calls: from the Authorization header to a workspace, an environment and scopes (requirements P-01, P-02)."""

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import asyncpg
import structlog

from spine.kernel.errors import Forbidden, Unauthenticated
from spine.kernel.events import Actor
from spine.kernel.keys import Env, is_well_formed, key_hash

CACHE_S: Final = 2.0
"""How long a key is trusted without asking again: a revocation is in force everywhere within this time."""
_CACHE_SIZE: Final = 10_000
_TOUCH_EVERY_S: Final = 10.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    """The holder of a key, in the one workspace that the key opens."""

    key_id: str
    workspace_id: str
    organisation_id: str
    env: Env
    scopes: frozenset[str]
    expires_at: datetime | None

    @property
    def actor(self) -> Actor:
        """The caller as events and timelines name it."""
        return Actor(type="api_key", id=self.key_id)

    def require(self, scope: str) -> None:
        """Raises Forbidden unless the key has the scope, its whole family (`crm:*`) or everything (`*`)."""
        if not ({"*", scope, scope.partition(":")[0] + ":*"} & self.scopes):
            raise Forbidden(f"this key lacks the scope {scope}; it has: {', '.join(sorted(self.scopes)) or 'none'}")


class Authenticator:
    """Finds callers by their keys, remembers them for a moment, and notes when keys are used."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool
        self._known: dict[str, tuple[float, Caller]] = {}
        self._used: set[str] = set()
        self._generation = 0

    async def caller(self, authorization: str | None) -> Caller:
        """The caller behind an Authorization header. Raises Unauthenticated."""
        scheme, _, key = (authorization or "").partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not is_well_formed(key):
            raise Unauthenticated
        now = time.monotonic()
        known = self._known.get(key)
        if (
            known is not None
            and now - known[0] < CACHE_S
            and (known[1].expires_at is None or known[1].expires_at > datetime.now(UTC))
        ):
            caller = known[1]
        else:
            generation = self._generation
            caller = await self._find(key)
            if len(self._known) >= _CACHE_SIZE:
                self._known.clear()
            if generation == self._generation:  # else a key was revoked while we asked, and this may be the old answer
                self._known[key] = (now, caller)
        self._used.add(caller.key_id)
        return caller

    async def _find(self, key: str) -> Caller:
        row = await self._pool.fetchrow("SELECT * FROM spine.key_find($1)", key_hash(key))
        if row is None:
            self._known.pop(key, None)
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
        """Ask anew about every key; called where this process itself rolled or revoked one."""
        self._known.clear()
        self._generation += 1

    async def track_key_use(self) -> None:
        """Keep `last_used_at` about right, for ever, without a write per request."""
        while True:
            await asyncio.sleep(_TOUCH_EVERY_S)
            try:
                await self.flush_key_use()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                _log.warning("key use not noted", error=repr(error))

    async def flush_key_use(self) -> None:
        """Write down which keys were used since the last time."""
        used, self._used = self._used, set()
        if used:
            await self._pool.execute("SELECT spine.keys_touch($1::text[])", list(used))
