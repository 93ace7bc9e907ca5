"""The worker that receives wakeups, without Redis."""

import asyncio
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from workers.pipeline import WakeupStatus
from workers.wakeups import WakeupWorker


async def _job(ctx: dict[str, Any]) -> None:
    """A job function: arq creates no worker without one."""


class _Listening(WakeupWorker):
    """Listens until it is cancelled, and loses Redis at the same time."""

    listens = 0

    async def _listen(self, wakeup_status: WakeupStatus) -> None:
        assert not wakeup_status.offline
        self.listens += 1
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            raise ExceptionGroup("redis", [RedisConnectionError("gone")]) from None


async def test_a_cancellation_is_not_lost_when_redis_goes_away() -> None:
    """A cancellation at the same time as an error of Redis still ends the worker (promise 3: SIGTERM drains)."""
    wakeup_status = WakeupStatus(offline=False)
    worker = _Listening([_job], ctx={"wakeup_status": wakeup_status}, handle_signals=False)
    main = asyncio.create_task(worker.main())
    while not worker.listens:  # noqa: ASYNC110  # two turns of the loop
        await asyncio.sleep(0)
    main.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(main, 5)
    assert worker.listens == 1
    assert wakeup_status.offline
