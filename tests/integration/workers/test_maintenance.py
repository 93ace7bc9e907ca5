"""Maintenance: each task does its work."""

from datetime import timedelta
from typing import Any

from spine.kernel.database import open_pool
from spine.kernel.metrics import exposition
from tests.delivery_engine import Engine
from tests.receiver import Receiver


async def test_held_deliveries_expire_after_the_retention(engine: Engine, receiver: Receiver) -> None:
    """A delivery held longer than the retention becomes a dead letter `expired`, with an event; others stay held."""
    await engine.endpoint(receiver.url("/off"), ["thing.*"], status="disabled")
    await engine.endpoint(receiver.url("/system"), ["delivery.*"])
    async with engine.running_worker(retention_days=30):
        await engine.publish(count=2)
        rows = await engine.until_states(held=2)
        await engine.pool.execute(
            "UPDATE spine.deliveries_open SET accepted_at = accepted_at - $2::interval WHERE id = $1",
            rows[0]["id"],
            timedelta(days=31),
        )
        await receiver.until_calls("/system", 1)
        rows = await engine.until_states(dead=1, held=1, delivered=1)
    (dead,) = [row for row in rows if row["state"] == "dead"]
    assert dead["reason"] == "expired"


async def test_partitions_are_created_and_dropped(engine: Engine) -> None:
    """The next days have partitions; partitions past the retention are dropped with their rows (promise 7)."""
    create = "CREATE TABLE spine.events_20200101 PARTITION OF spine.events FOR VALUES FROM ('evt_01DXF6DT00') TO ('evt_01DXHRTK00')"
    await engine.pool.execute(create)
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
    """Idempotency keys and rotated secrets are deleted when they expire, and not before."""
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

    async def deleted() -> Any:
        return await engine.pool.fetchval(
            "SELECT (SELECT count(*) FROM spine.idempotency_keys) = 1 AND (SELECT count(*) FROM spine.endpoint_secrets) = 2"
        )

    async with engine.running_worker():
        await engine.until(deleted)
    assert await engine.pool.fetchval("SELECT key FROM spine.idempotency_keys") == "new"


async def test_the_metrics_show_the_queue(engine: Engine, receiver: Receiver) -> None:
    """The stats of the queues are read from Postgres into the metrics."""
    await engine.endpoint(receiver.url("/off"), status="disabled")
    async with engine.running_worker():
        await engine.publish(count=3)
        await engine.until_states(held=3)

        async def shown() -> bool:
            return b'spine_queue_open{cargo="delivery",state="held"} 3.0' in exposition()[0]

        await engine.until(shown)


async def test_the_worker_role_may_maintain_partitions(engine: Engine) -> None:
    """Creating and dropping partitions needs no more than the worker's role."""
    pool = await open_pool(engine.url, "spine_worker", "tests", 1)
    try:
        assert await pool.fetchval("SELECT current_user") == "spine_worker"
        await pool.execute("SELECT spine.partitions_ensure(7)")
        await pool.fetch("SELECT spine.partitions_drop(now() - interval '30 days')")
    finally:
        await pool.close()
