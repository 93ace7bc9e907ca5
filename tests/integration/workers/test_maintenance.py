"""Upkeep: each duty does what it says, once, and is harmless when done twice."""

from datetime import timedelta
from typing import Any

from spine.kernel.database import open_pool
from spine.kernel.metrics import exposition
from tests.delivery_engine import Engine
from tests.receiver import Receiver


async def test_held_work_is_kept_for_the_time_of_retention(engine: Engine, receiver: Receiver) -> None:
    """What was held for longer than anything is kept becomes a dead letter that says so, and is told of; the rest stays."""
    await engine.endpoint(receiver.url("/off"), ["thing.*"], status="disabled")
    await engine.endpoint(receiver.url("/told"), ["delivery.*"])
    async with engine.running_worker(retention_days=30):
        await engine.publish(count=2)
        rows = await engine.until_states(held=2)
        await engine.pool.execute(
            "UPDATE spine.deliveries_open SET accepted_at = accepted_at - $2::interval WHERE id = $1",
            rows[0]["id"],
            timedelta(days=31),
        )
        await receiver.until_calls("/told", 1)
        rows = await engine.until_states(dead=1, held=1, delivered=1)
    (dead,) = [row for row in rows if row["state"] == "dead"]
    assert dead["reason"] == "expired"


async def test_partitions_come_and_go(engine: Engine) -> None:
    """The days to come have their partitions; days past retention are dropped, with what they hold (promise 7)."""
    old = "CREATE TABLE spine.events_20200101 PARTITION OF spine.events FOR VALUES FROM ('evt_01DXF6DT00') TO ('evt_01DXHRTK00')"
    await engine.pool.execute(old)
    days = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'spine.events'::regclass"
    await engine.pool.execute(
        "DROP TABLE spine.events_"
        + str(await engine.pool.fetchval("SELECT to_char(now() + interval '6 days', 'YYYYMMDD')"))
    )
    before = await engine.pool.fetchval(days)
    async with engine.running_worker():
        await engine.until(lambda: engine.pool.fetchval("SELECT to_regclass('spine.events_20200101') IS NULL"))
        await engine.until(lambda: engine.pool.fetchval(f"SELECT ({days}) = $1", before))


async def test_expired_keys_and_secrets_are_deleted(engine: Engine, receiver: Receiver) -> None:
    """Idempotency keys and rotated secrets go when their time is over, and not before."""
    endpoint = await engine.endpoint(receiver.url("/hook"))
    for key, age in (("old", "-1 s"), ("new", "1 day")):
        await engine.pool.execute(
            "INSERT INTO spine.idempotency_keys (workspace_id, key, fingerprint, expires_at) "
            "VALUES ($1, $2, '', now() + ($3::text)::interval)",
            engine.workspace_id,
            key,
            age,
        )
        await engine.pool.execute(
            "INSERT INTO spine.endpoint_secrets (workspace_id, endpoint_id, secret, expires_at) "
            "SELECT workspace_id, id, '', now() + ($2::text)::interval FROM spine.webhook_endpoints WHERE id = $1",
            endpoint.id,
            age,
        )

    async def cleaned() -> Any:
        return await engine.pool.fetchval(
            "SELECT (SELECT count(*) FROM spine.idempotency_keys) = 1 AND (SELECT count(*) FROM spine.endpoint_secrets) = 2"
        )

    async with engine.running_worker():
        await engine.until(cleaned)
    assert await engine.pool.fetchval("SELECT key FROM spine.idempotency_keys") == "new"


async def test_the_queue_is_shown(engine: Engine, receiver: Receiver) -> None:
    """The figures of the queues are read from Postgres and stand in the metrics."""
    await engine.endpoint(receiver.url("/off"), status="disabled")
    async with engine.running_worker():
        await engine.publish(count=3)
        await engine.until_states(held=3)

        async def shown() -> bool:
            return b'spine_queue_open{cargo="delivery",state="held"} 3.0' in exposition()[0]

        await engine.until(shown)


async def test_the_worker_role_may_do_all_of_it(engine: Engine) -> None:
    """Nothing of upkeep needs more than the worker's role has."""
    pool = await open_pool(engine.url, "spine_worker", "tests", 1)
    try:
        assert await pool.fetchval("SELECT current_user") == "spine_worker"
        await pool.execute("SELECT spine.partitions_ensure(7)")
        await pool.fetch("SELECT spine.partitions_drop(now() - interval '30 days')")
    finally:
        await pool.close()
