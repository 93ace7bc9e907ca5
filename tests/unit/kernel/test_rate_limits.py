"""The rate limiter beside a Redis that hangs: it is asked now and then, and no request waits for it twice."""

import asyncio
from typing import Any, cast

from spine.kernel.rate_limits import RateLimiter


class Hung:
    """A Redis that never answers."""

    def __init__(self) -> None:
        self.asked = 0

    def pipeline(self, *, transaction: bool) -> "Hung":  # noqa: ARG002  # the client's signature
        return self

    async def __aenter__(self) -> "Hung":
        return self

    async def __aexit__(self, *_: object) -> None: ...

    def incrby(self, key: str, by: int) -> None: ...

    def expire(self, key: str, seconds: int) -> None: ...

    async def execute(self) -> Any:
        self.asked += 1
        await asyncio.Event().wait()


async def test_requests_do_not_queue_behind_a_redis_that_hangs() -> None:
    """300 requests of 300 workspaces ask it once, and then once a second at most."""
    hung = Hung()
    limiter = RateLimiter(cast("Any", hung), 1000)
    loop = asyncio.get_running_loop()
    start_s = loop.time()
    for n in range(300):
        await limiter.take(f"wsp_{n}")
    assert hung.asked <= 1 + (loop.time() - start_s)
