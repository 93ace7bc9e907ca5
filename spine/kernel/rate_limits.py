"""Rate limiters: requests per workspace and minute, and rare actions per address and hour, counted in Redis.

Requests are leased to each process in small batches, so a process calls Redis once per batch, not once per request. While
Redis is unreachable or slow each process counts alone: the limit then holds per process, and no request is refused that
would otherwise have been served. One request a second finds out whether Redis answers again; the others do not wait.
"""

import asyncio
import hashlib
import time
from dataclasses import dataclass
from typing import Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from spine.kernel.errors import TooManyRequests
from spine.kernel.metrics import rate_limited

WINDOW_S: Final = 60
_BATCHES_PER_WINDOW: Final = 200
_REDIS_RETRY_S: Final = 1.0
_REDIS_WAIT_S: Final = 0.25
"""How long a request waits for Redis."""
_MAX_WORKSPACES: Final = 50_000
_MAX_SUBJECTS: Final = 10_000

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Budget:
    """What this process may still serve of a workspace's limit. `used` counts the requests of all processes."""

    window: int
    remaining: int = 0
    granted: int = 0
    used: int = 0


class RateLimiter:
    """Allows `limit` requests per workspace and minute."""

    def __init__(self, redis: Redis, limit: int) -> None:
        self._redis = redis
        self._limit = limit
        self._batch = max(1, limit // _BATCHES_PER_WINDOW)
        self._budgets: dict[str, _Budget] = {}
        self._redis_answers = True
        self._redis_retry_s = 0.0
        self.policy = f'"default";q={limit};w={WINDOW_S}'

    async def take(self, workspace_id: str) -> dict[str, str]:
        """Count one request. Returns the RateLimit headers of its response. Raises TooManyRequests beyond the limit."""
        now = time.time()
        window = int(now // WINDOW_S)
        budget = self._budgets.get(workspace_id)
        if budget is None or budget.window != window:
            if len(self._budgets) >= _MAX_WORKSPACES:
                self._budgets.clear()
            budget = self._budgets[workspace_id] = _Budget(window)
        if budget.remaining <= 0:
            await self._lease(workspace_id, budget)
        reset_s = max(1, int((window + 1) * WINDOW_S - now))
        if budget.remaining <= 0:
            rate_limited()
            raise TooManyRequests(
                f"this workspace made its {self._limit} requests of this minute; go on in {reset_s} s",
                retry_after_s=reset_s,
                headers=self._headers(0, reset_s),
            )
        budget.remaining -= 1
        return self._headers(max(0, self._limit - budget.used) + budget.remaining, reset_s)

    def _headers(self, remaining: int, reset_s: int) -> dict[str, str]:
        return {"RateLimit-Policy": self.policy, "RateLimit": f'"default";r={remaining};t={reset_s}'}

    async def _lease(self, workspace_id: str, budget: _Budget) -> None:
        granted = await self._ask_redis(workspace_id, budget)
        if granted is None:
            granted = self._batch
        granted = max(0, min(granted, self._limit - budget.granted))
        budget.granted += granted
        budget.remaining += granted

    async def _ask_redis(self, workspace_id: str, budget: _Budget) -> int | None:
        """Return what Redis grants; None if it does not answer."""
        now_s = time.monotonic()
        if not self._redis_answers:
            if now_s < self._redis_retry_s:
                return None
            self._redis_retry_s = now_s + _REDIS_RETRY_S
        # The call is not cancelled: before Python 3.12 the client may lose a cancellation (`open_redis`).
        asking = asyncio.create_task(self._lease_from_redis(workspace_id, budget))
        asking.add_done_callback(_drop_error)
        await asyncio.wait({asking}, timeout=_REDIS_WAIT_S)
        self._redis_answers = asking.done() and asking.exception() is None
        if self._redis_answers:
            return asking.result()
        self._redis_retry_s = time.monotonic() + _REDIS_RETRY_S
        return None

    async def _lease_from_redis(self, workspace_id: str, budget: _Budget) -> int:
        key = f"spine:rate:{workspace_id}:{budget.window}"
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.incrby(key, self._batch)
            pipe.expire(key, 2 * WINDOW_S)
            used, _ = await pipe.execute()
        budget.used = min(used, self._limit)
        return self._batch - max(0, int(used) - self._limit)


def _drop_error(asked: "asyncio.Task[int]") -> None:
    """Take a late error off a task, so that it is not logged as unhandled. Other errors than those of Redis are faults."""
    error = None if asked.cancelled() else asked.exception()
    if error is not None and not isinstance(error, RedisError | OSError):
        raise error


class ActionLimiter:
    """Allows `limit` actions of one kind per subject and window. Each one calls Redis, and is counted here as well."""

    def __init__(self, redis: Redis, kind: str, limit: int, window_s: int) -> None:
        self._redis = redis
        self._kind = kind
        self._limit = limit
        self._window_s = window_s
        self._counts: dict[str, int] = {}

    async def take(self, subject: str, refusal: str) -> None:
        """Count one action. Raises TooManyRequests beyond the limit, with this text and the code `<kind>_limited`."""
        now = time.time()
        window = int(now // self._window_s)
        key = f"spine:{self._kind}:{window}:{hashlib.sha256(subject.encode()).hexdigest()[:32]}"
        if key not in self._counts and len(self._counts) >= _MAX_SUBJECTS:
            del self._counts[next(iter(self._counts))]
        count = self._counts[key] = self._counts.get(key, 0) + 1
        try:
            count = max(count, await self._count_in_redis(key))
        except (RedisError, OSError):
            _log.warning("an action is counted without Redis", kind=self._kind)
        if count > self._limit:
            rate_limited()
            raise TooManyRequests(
                refusal, retry_after_s=int((window + 1) * self._window_s - now), code=f"{self._kind}_limited"
            )

    async def _count_in_redis(self, key: str) -> int:
        async with asyncio.timeout(_REDIS_WAIT_S), self._redis.pipeline(transaction=False) as pipe:
            pipe.incr(key)
            pipe.expire(key, self._window_s)
            count, _ = await pipe.execute()
        return int(count)
