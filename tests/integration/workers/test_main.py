"""The worker process: wakeups through Redis, signals, and servers that stop and start (promises 1 and 3, P-20)."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from spine.kernel.redis_client import open_redis
from spine.kernel.wakeups import Wakeups
from tests.breakable_servers import Servers, breakable_servers
from tests.delivery_engine import Engine, running_engine
from tests.receiver import HANG, OK, Receiver, ScriptedResponse


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[Servers]:
    """A Postgres and a Redis that a test may kill."""
    async with breakable_servers(tmp_path) as servers:
        yield servers


async def test_a_wakeup_starts_the_work(engine: Engine, receiver: Receiver) -> None:
    """With a long sweep interval, wakeups alone start the delivery of events and the retries."""
    receiver.script("/hook", ScriptedResponse(500), OK, ScriptedResponse(500), OK)
    await engine.endpoint(receiver.url("/hook"))
    await engine.worker(sweep_s=600)
    redis = open_redis(engine.redis_url)
    wakeups = Wakeups(redis)
    for n in (1, 2):
        await engine.publish()
        wakeups.wake("relay")
        await engine.until_states(delivered=n)
    await wakeups.close()
    await redis.aclose()
    for row in await engine.deliveries():
        assert row["attempts"][1]["started_at"] >= row["attempts"][0]["next_attempt_at"]


async def test_a_killed_worker_is_taken_over(engine: Engine, receiver: Receiver) -> None:
    """Another worker delivers what a worker killed with -9 had leased, after the leases end (promise 3)."""
    receiver.always("/hook", HANG)
    await engine.endpoint(receiver.url("/hook"))
    first = await engine.worker()
    made = await engine.publish(count=40)
    await receiver.until_calls("/hook", 4)
    await engine.stop(first, signal.SIGKILL)
    receiver.always("/hook", OK)
    await engine.worker()
    rows = await engine.until_states(delivered=40)
    assert {call.event_id for call in receiver.calls} == set(made)
    assert all(len(row["attempts"]) == 1 for row in rows)


async def test_a_signal_drains(engine: Engine, receiver: Receiver) -> None:
    """SIGTERM waits for calls in flight, records them, leaves no lease and no heartbeat, and exits with status 0."""
    receiver.always("/hook", ScriptedResponse(delay_s=1))
    await engine.endpoint(receiver.url("/hook"))
    worker = await engine.worker(lease_s=600)
    await engine.publish(count=30)
    await receiver.until_calls("/hook", 4)
    assert await engine.stop(worker) == 0
    rows = await engine.deliveries()
    assert sum(row["state"] == "delivered" for row in rows) == receiver.count["/hook"]
    assert await engine.pool.fetchval("SELECT count(*) FROM spine.deliveries_open WHERE leased_by IS NOT NULL") == 0
    assert await engine.pool.fetchval("SELECT count(*) FROM spine.workers") == 0


async def test_a_worker_that_was_frozen_stops_at_its_signal(engine: Engine) -> None:
    """A worker that was stopped for longer than its time-outs, and gets SIGTERM as it goes on, ends by itself."""
    worker = await engine.worker()
    worker.send_signal(signal.SIGSTOP)
    await asyncio.sleep(2)
    worker.send_signal(signal.SIGCONT)
    assert await engine.stop(worker) == 0


async def test_the_worker_runs_while_redis_is_empty_killed_or_absent(servers: Servers, receiver: Receiver) -> None:
    """A worker starts without Redis, goes on when Redis is killed or flushed, and delivers by polling (promise 1)."""
    async with running_engine(servers.database_url, servers.redis_url) as engine:
        await engine.endpoint(receiver.url("/hook"))
        await servers.redis.kill()
        worker = await engine.worker(sweep_s=600)
        await engine.publish(count=3)
        await engine.until_states(delivered=3)
        await engine.publish(count=3)
        await servers.redis.start()
        await engine.until_states(delivered=6)
        await servers.flush_redis()
        redis = open_redis(servers.redis_url)
        wakeups = Wakeups(redis)

        async def delivered() -> bool:
            wakeups.wake("relay")
            return len(await engine.deliveries(state="delivered")) == 9

        await engine.publish(count=3)
        await engine.until(delivered)
        await wakeups.close()
        await redis.aclose()
        await servers.redis.kill()
        assert await engine.stop(worker) == 0


async def test_the_worker_survives_a_crash_of_postgres(servers: Servers, receiver: Receiver) -> None:
    """A worker goes on after a crash of Postgres, and loses no result of calls that end while it is down."""
    async with running_engine(servers.database_url, servers.redis_url) as engine:
        receiver.always("/hook", ScriptedResponse(delay_s=3))
        await engine.endpoint(receiver.url("/hook"))
        worker = await engine.worker(lease_s=60)
        made = await engine.publish(count=4)
        await receiver.until_calls("/hook", 4)
        await asyncio.sleep(1)  # a crash may undo the last move from the outbox, and then every call is repeated
        await servers.postgres.kill()
        await asyncio.sleep(2.5)  # the calls end while Postgres is down
        await servers.postgres.start()
        await engine.until_states(delivered=4)
        assert sorted(call.event_id for call in receiver.calls) == sorted(made)
        await engine.publish(count=2)
        await engine.until_states(delivered=6)
        assert worker.poll() is None
