"""The bells' worker without Redis: it goes on, and it stops when it is told to."""

import asyncio
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from workers.pipeline import WakeupStatus
from workers.wakeups import WakeupWorker


async def _look(ctx: dict[str, Any]) -> None:
    """A function, without which arq makes no worker."""


class _Listening(WakeupWorker):
    """Listens until it is cancelled, and loses Redis in the same moment."""

    listens = 0

    async def _listen(self, wakeup_status: WakeupStatus) -> None:
        assert not wakeup_status.offline
        self.listens += 1
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            raise ExceptionGroup("ears", [RedisConnectionError("gone")]) from None


async def test_a_stop_is_not_lost_to_a_redis_that_goes_away() -> None:
    """A cancellation that meets an error of Redis still ends the worker (promise 3: SIGTERM drains)."""
    wakeup_status = WakeupStatus(offline=False)
    worker = _Listening([_look], ctx={"hearing": wakeup_status}, handle_signals=False)
    main = asyncio.create_task(worker.main())
    await asyncio.sleep(0)
    main.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(main, 5)
    assert worker.listens == 1
    assert wakeup_status.offline
