"""A worker that is frozen (SIGSTOP), not dead: its connections stay open, and it must hold nothing back."""

import signal

import pytest

from tests.delivery_engine import Engine, running_engine
from tests.receiver import Receiver

HOLDER = "SELECT w.pid FROM spine.leases l JOIN spine.workers w ON w.id = l.holder WHERE l.name = 'maintenance'"
OLD = "CREATE TABLE spine.events_20200101 PARTITION OF spine.events FOR VALUES FROM ('evt_01DXF6DT00') TO ('evt_01DXHRTK00')"


async def _holder(engine: Engine, *, other_than: int = 0) -> int:
    found: int = await engine.until(
        lambda: engine.pool.fetchval(f"SELECT pid FROM ({HOLDER}) AS h WHERE pid <> $1", other_than)
    )
    return found


@pytest.mark.timeout(200)
async def test_a_frozen_holder_of_the_lease_is_replaced(database: str, redis_url: str) -> None:
    """When the worker that does maintenance freezes, another one takes over its lease, its deliveries and its work.

    When it thaws, it finds that it has lost the lease, and both go on.
    """
    async with Receiver() as receiver, running_engine(database, redis_url) as engine:
        await engine.endpoint(receiver.url("/hook"))
        workers = {worker.pid: worker for worker in (await engine.worker(), await engine.worker())}
        frozen = await _holder(engine)
        await engine.publish(count=50)
        workers[frozen].send_signal(signal.SIGSTOP)
        try:
            await engine.publish(count=50)
            await engine.pool.execute(OLD)
            other = await _holder(engine, other_than=frozen)
            assert other in workers
            await engine.until_states(delivered=100, timeout_s=90)
            await engine.until(
                lambda: engine.pool.fetchval("SELECT to_regclass('spine.events_20200101') IS NULL"), timeout_s=90
            )
        finally:
            workers[frozen].send_signal(signal.SIGCONT)
        await engine.publish(count=20)
        await engine.until_states(delivered=120)
        assert await _holder(engine, other_than=frozen) == other
        assert len(engine.alive) == 2
