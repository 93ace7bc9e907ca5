"""The lease of maintenance: one worker holds it, and a frozen one only until its time is over."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from spine.kernel.database import open_pool
from tests.delivery_engine import Engine
from workers.maintenance.lease import Lease, LeaseLostError

HOLDER = "SELECT holder FROM spine.leases WHERE name = 'maintenance'"


@pytest.fixture
async def pool(engine: Engine) -> AsyncIterator[Any]:
    """A pool of the worker role, with the settings of the product."""
    made = await open_pool(engine.url, "spine_worker", "tests", 2)
    try:
        yield made
    finally:
        await made.close()


async def test_a_lease_that_is_not_renewed_is_taken_over(engine: Engine, pool: Any) -> None:
    """While a lease lasts nobody else takes it. After its end by Postgres' clock the next one does, and the former learns it."""
    frozen, other = Lease(pool, "maintenance", "frozen", 30), Lease(pool, "maintenance", "other", 30)
    assert await frozen.take()
    assert not await other.take()
    await engine.pool.execute("UPDATE spine.leases SET leased_until = now() - interval '1 ms'")
    assert await other.take()
    assert not await frozen.take()
    with pytest.raises(LeaseLostError):
        await frozen.renew()
    assert await engine.pool.fetchval(HOLDER) == "other"


async def test_a_lease_is_renewed_while_its_holder_works(engine: Engine, pool: Any) -> None:
    """Each renewal after a third of the time puts the end off. Taking it again does so at once."""
    lease = Lease(pool, "maintenance", "busy", 0.001)  # a third of this time has passed at the next call
    assert await lease.take()
    ends = [await engine.pool.fetchval("SELECT leased_until FROM spine.leases")]
    for renew in (lease.renew, lease.take):
        await renew()
        ends.append(await engine.pool.fetchval("SELECT leased_until FROM spine.leases"))
    assert ends == sorted(set(ends))


async def test_a_lease_that_was_given_back_is_free_at_once(engine: Engine, pool: Any) -> None:
    """A worker that stops leaves no wait behind, and takes the lease no more."""
    stopping, other = Lease(pool, "maintenance", "stopping", 600), Lease(pool, "maintenance", "other", 600)
    assert await stopping.take()
    await stopping.give_back()
    assert not await stopping.take()
    assert await other.take()


async def test_a_worker_does_no_maintenance_while_another_one_holds_the_lease(engine: Engine) -> None:
    """With the lease of a live holder nothing is dropped; when the holder renews no more, the worker takes over."""
    await engine.pool.execute(
        "CREATE TABLE spine.events_20200101 PARTITION OF spine.events FOR VALUES FROM ('evt_01DXF6DT00') TO ('evt_01DXHRTK00')"
    )
    await engine.pool.execute("INSERT INTO spine.leases VALUES ('maintenance', 'frozen', now() + interval '1 hour')")
    exists = "SELECT to_regclass('spine.events_20200101') IS NOT NULL"
    async with engine.running_worker() as runtime:
        await engine.until(lambda: engine.pool.fetchval("SELECT count(*) = 1 FROM spine.workers"))
        await engine.publish()
        await engine.until(lambda: engine.pool.fetchval("SELECT count(*) = 0 FROM spine.outbox"))
        assert await engine.pool.fetchval(exists)
        await engine.pool.execute("UPDATE spine.leases SET leased_until = now()")
        await engine.until(lambda: engine.pool.fetchval(f"SELECT NOT ({exists})"))
        assert await engine.pool.fetchval(HOLDER) == runtime.worker_id
    assert await engine.pool.fetchval(HOLDER) is None
