"""Requests per workspace and minute, counted in Redis and leased to each process in small parts.

A process asks Redis once per part, not once per request. While Redis is away each process counts for itself: the
limit then holds per process, and nothing is refused that would otherwise have been served.
"""

import time
from dataclasses import dataclass, field
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from spine.kernel.errors import TooManyRequests
from spine.kernel.metrics import rate_limited

WINDOW_S: Final = 60
_PARTS: Final = 200
_ALONE_S: Final = 1.0
_MAX_WORKSPACES: Final = 50_000


@dataclass(slots=True)
class _Budget:
    window: int
    left: int = 0
    granted: int = 0
    used_by_all: int = 0
    alone_until: float = field(default=0.0)


class RateLimiter:
    """`limit` requests in each minute, for each workspace."""

    def __init__(self, redis: Redis, limit: int) -> None:
        self._redis = redis
        self._limit = limit
        self._part = max(1, limit // _PARTS)
        self._budgets: dict[str, _Budget] = {}
        self.policy = f'"default";q={limit};w={WINDOW_S}'

    async def take(self, workspace_id: str) -> dict[str, str]:
        """Count one request; answers the headers that tell the caller where it stands. Raises TooManyRequests."""
        now = time.time()
        window = int(now // WINDOW_S)
        budget = self._budgets.get(workspace_id)
        if budget is None or budget.window != window:
            if len(self._budgets) >= _MAX_WORKSPACES:
                self._budgets.clear()
            budget = self._budgets[workspace_id] = _Budget(window)
        if budget.left <= 0:
            await self._lease(workspace_id, budget, now)
        reset_s = max(1, int((window + 1) * WINDOW_S - now))
        if budget.left <= 0:
            rate_limited()
            raise TooManyRequests(
                f"this workspace made its {self._limit} requests of this minute; go on in {reset_s} s",
                retry_after_s=reset_s,
                headers=self._headers(0, reset_s),
            )
        budget.left -= 1
        return self._headers(max(0, self._limit - budget.used_by_all) + budget.left, reset_s)

    def _headers(self, remaining: int, reset_s: int) -> dict[str, str]:
        return {"RateLimit-Policy": self.policy, "RateLimit": f'"default";r={remaining};t={reset_s}'}

    async def _lease(self, workspace_id: str, budget: _Budget, now: float) -> None:
        if now < budget.alone_until:
            granted = self._part
        else:
            try:
                granted = await self._ask(workspace_id, budget)
            except (RedisError, OSError):
                budget.alone_until = now + _ALONE_S
                granted = self._part
        granted = max(0, min(granted, self._limit - budget.granted))
        budget.granted += granted
        budget.left += granted

    async def _ask(self, workspace_id: str, budget: _Budget) -> int:
        key = f"spine:rate:{workspace_id}:{budget.window}"
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.incrby(key, self._part)
            pipe.expire(key, 2 * WINDOW_S)
            used, _ = await pipe.execute()
        budget.used_by_all = min(used, self._limit)
        return self._part - max(0, int(used) - self._limit)
