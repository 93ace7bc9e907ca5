"""A Redis that accepts connections and never answers: workers go on without wakeups, and hear them again afterwards."""

import asyncio
from collections.abc import Callable
from typing import Any

from redis.exceptions import RedisError

from spine.kernel.redis_client import open_redis, redis_settings
from spine.kernel.wakeups import WAKEUP_QUEUE, WakeupKind, Wakeups
from tests.freezing_proxy import freezing_proxy
from workers.pipeline import WakeupStatus
from workers.wakeups import WakeupWorker


async def send(ctx: dict[str, Any]) -> None:
    """A job function: arq creates no worker without one."""


async def becomes(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    """Wait until the condition is true."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  # the condition has no event
            await asyncio.sleep(0.02)


async def test_a_worker_notices_a_hanging_redis_and_hears_wakeups_afterwards(redis_url: str) -> None:
    """It is offline while Redis hangs, so its pipelines poll Postgres, and online again when Redis answers."""
    heard: list[WakeupKind] = []
    status = WakeupStatus(on_wakeup=heard.append)
    async with freezing_proxy(redis_url) as proxy:
        settings = redis_settings(proxy.url, retries=1)
        settings.conn_retries = 0
        worker = WakeupWorker(
            [send],
            redis_settings=settings,
            ctx={"wakeup_status": status},
            queue_name=WAKEUP_QUEUE,
            handle_signals=False,
            poll_delay=0.05,
        )
        main = asyncio.create_task(worker.main())
        await becomes(lambda: not status.offline)
        proxy.freeze()
        await becomes(lambda: status.offline)
        proxy.thaw()
        await becomes(lambda: not status.offline)
        redis = open_redis(redis_url)
        wakeups = Wakeups(redis)
        wakeups.wake("send")
        await becomes(lambda: heard == ["send"])
        await wakeups.close()
        await redis.aclose()
        main.cancel()
        await asyncio.gather(main, return_exceptions=True)
        await worker.close()


async def test_a_worker_that_starts_beside_a_hanging_redis_waits_for_it(redis_url: str) -> None:
    """The first connection may hang too: the worker starts, stays offline, and goes online when Redis answers."""
    status, started = WakeupStatus(), asyncio.Event()

    async def startup(ctx: dict[str, Any]) -> None:
        started.set()

    async with freezing_proxy(redis_url) as proxy:
        proxy.freeze()
        worker = WakeupWorker(
            [send],
            redis_settings=redis_settings(proxy.url, retries=1),
            ctx={"wakeup_status": status},
            queue_name=WAKEUP_QUEUE,
            handle_signals=False,
            on_startup=startup,
        )
        main = asyncio.create_task(worker.main())
        await started.wait()
        await becomes(lambda: worker._reported_offline)
        assert status.offline
        proxy.thaw()
        await becomes(lambda: not status.offline)
        main.cancel()
        await asyncio.gather(main, return_exceptions=True)
        await worker.close()


async def test_a_quiet_worker_keeps_its_connection(redis_url: str) -> None:
    """Blocking for a wakeup longer than other calls may take is no fault: no connection is made anew."""
    status = WakeupStatus()
    async with freezing_proxy(redis_url) as proxy:
        worker = WakeupWorker(
            [send],
            redis_settings=redis_settings(proxy.url, retries=1),
            ctx={"wakeup_status": status},
            queue_name=WAKEUP_QUEUE,
            handle_signals=False,
        )
        main = asyncio.create_task(worker.main())
        await becomes(lambda: not status.offline)
        await asyncio.sleep(2.5)
        accepted = proxy.accepted
        await asyncio.sleep(4)
        assert (proxy.accepted, status.offline) == (accepted, False)
        main.cancel()
        await asyncio.gather(main, return_exceptions=True)
        await worker.close()


async def test_sending_wakeups_ends_beside_a_hanging_redis(redis_url: str) -> None:
    """Wakeups for now and for later are given up; closing does not wait for ever, and later ones are sent."""
    async with freezing_proxy(redis_url) as proxy:
        redis = open_redis(proxy.url)
        wakeups = Wakeups(redis)
        proxy.freeze()
        wakeups.wake("relay")
        wakeups.wake_at("deliver", [2_000_000_000.0])
        async with asyncio.timeout(60):
            await wakeups.close()
        proxy.thaw()
        direct = open_redis(redis_url)
        await direct.flushdb()
        wakeups.wake_at("deliver", [2_000_000_000.0])
        await wakeups.close()
        assert await direct.zcard(WAKEUP_QUEUE) == 1
        await direct.flushdb()
        await direct.aclose()
        await redis.aclose()


async def test_a_call_gives_up(redis_url: str) -> None:
    """A client's call to a hanging Redis raises an error of Redis."""
    async with freezing_proxy(redis_url) as proxy:
        redis = open_redis(proxy.url)
        await redis.ping()
        proxy.freeze()
        async with asyncio.timeout(60):
            try:
                await redis.get("x")
            except RedisError as error:
                raised: RedisError | None = error
            else:
                raised = None
        assert raised is not None
        proxy.thaw()
        await redis.aclose()
