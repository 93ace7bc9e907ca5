"""Bells in a real Redis: what is rung is heard, what was heard is gone from the queue."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from spine.kernel.redis_client import open_redis
from spine.kernel.wakeups import WAKEUP_QUEUE, WakeupKind, Wakeups, receive_wakeup, remove_job

SOON_S = 0.05


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """The bells' Redis, empty."""
    redis = open_redis(redis_url)
    await redis.flushdb()
    yield redis
    await redis.aclose()


async def _ring(redis: Redis, *kinds: WakeupKind) -> None:
    for kind in kinds:
        wakeups = Wakeups(redis)
        wakeups.wake(kind)
        await wakeups.close()


async def _hear(redis: Redis) -> tuple[WakeupKind, str] | None:
    return await receive_wakeup(redis, SOON_S)


async def test_rings_that_nobody_heard_are_one(redis: Redis) -> None:
    """However often it rings, one of each kind lies at the door, and one job of each in the queue."""
    await _ring(redis, "relay", "relay", "send", "relay")
    acknowledge = [await _hear(redis), await _hear(redis)]
    assert {wakeups[0] for wakeups in acknowledge if wakeups} == {"relay", "send"}
    assert await _hear(redis) is None
    assert await redis.zcard(WAKEUP_QUEUE) == 2


async def test_a_ring_after_the_pick_up_is_heard(redis: Redis) -> None:
    """Whoever picked a bell up looks; what comes about after that look has a bell of its own, the job taken or not."""
    await _ring(redis, "relay")
    first = await _hear(redis)
    assert first is not None
    await _ring(redis, "relay")
    await remove_job(redis, *first)
    second = await _hear(redis)
    assert second is not None
    assert second[0] == "relay"
    await remove_job(redis, *second)
    assert await redis.zcard(WAKEUP_QUEUE) == 0


async def test_a_worker_that_dies_at_the_door_leaves_its_job(redis: Redis) -> None:
    """The job of a bell that was picked up stays in arq's queue until it is taken, for the other workers."""
    await _ring(redis, "deliver")
    wakeups = await _hear(redis)
    assert wakeups is not None
    assert await redis.zrange(WAKEUP_QUEUE, 0, -1) == [wakeups[1].encode()]
    await remove_job(redis, *wakeups)
    assert await redis.zcard(WAKEUP_QUEUE) == 0
    await _ring(redis, "deliver")
    assert await redis.zcard(WAKEUP_QUEUE) == 1
