"""Wakeups in a real Redis: each one that is sent is received, and its job is removed from the queue."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from spine.kernel.redis_client import open_redis
from spine.kernel.wakeups import WAKEUP_QUEUE, WakeupKind, Wakeups, receive_wakeup, remove_job

WAIT_S = 0.05


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """An empty Redis."""
    redis = open_redis(redis_url)
    await redis.flushdb()
    yield redis
    await redis.aclose()


async def _wake(redis: Redis, *kinds: WakeupKind) -> None:
    for kind in kinds:
        wakeups = Wakeups(redis)
        wakeups.wake(kind)
        await wakeups.close()


async def _receive(redis: Redis) -> tuple[WakeupKind, str]:
    received = await receive_wakeup(redis, WAIT_S)
    assert received is not None
    return received


async def test_unreceived_wakeups_of_a_kind_are_one(redis: Redis) -> None:
    """However many are sent, one wakeup of each kind is in its list, and one job of each kind in the queue."""
    await _wake(redis, "relay", "relay", "send", "relay")
    assert {(await _receive(redis))[0], (await _receive(redis))[0]} == {"relay", "send"}
    assert await receive_wakeup(redis, WAIT_S) is None
    assert await redis.zcard(WAKEUP_QUEUE) == 2


async def test_a_wakeup_after_a_receipt_is_received(redis: Redis) -> None:
    """Work that appears after a received wakeup has its own wakeup, whether the first job is removed or not."""
    await _wake(redis, "relay")
    first = await _receive(redis)
    await _wake(redis, "relay")
    await remove_job(redis, *first)
    second = await _receive(redis)
    assert second[0] == "relay"
    await remove_job(redis, *second)
    assert await redis.zcard(WAKEUP_QUEUE) == 0


async def test_a_worker_that_dies_after_it_received_a_wakeup_leaves_its_job(redis: Redis) -> None:
    """The job of a received wakeup stays in arq's queue until it is removed, for the other workers."""
    await _wake(redis, "deliver")
    received = await _receive(redis)
    assert await redis.zrange(WAKEUP_QUEUE, 0, -1) == [received[1].encode()]
    await remove_job(redis, *received)
    assert await redis.zcard(WAKEUP_QUEUE) == 0
    await _wake(redis, "deliver")
    assert await redis.zcard(WAKEUP_QUEUE) == 1
