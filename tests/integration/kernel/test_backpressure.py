"""How many events wait in the outbox: right for a few rows, bounded for many."""

from typing import Any

import orjson

from tests.delivery_engine import Engine

ROWS = 60_000


async def fill(engine: Engine, rows: int) -> None:
    """Insert outbox rows of this workspace."""
    await engine.pool.execute(
        "INSERT INTO spine.outbox (workspace_id, event_id, type) SELECT $1, 'evt_' || n, 'thing.happened' FROM generate_series(1, $2) n",
        engine.workspace_id,
        rows,
    )


async def depths(engine: Engine) -> dict[str, int]:
    """The depth of each workspace's outbox."""
    return {row["workspace_id"]: row["depth"] for row in await engine.pool.fetch("SELECT * FROM spine.outbox_depths()")}


async def neighbour(engine: Engine) -> Engine:
    """Another workspace of the same database."""
    other = Engine(engine.url, engine.redis_url, engine.pool)
    await other.create_workspace()
    return other


async def test_two_rows_are_two(engine: Engine) -> None:
    """Rows are counted, however far apart their numbers are."""
    other = await neighbour(engine)
    await engine.publish()
    await engine.pool.execute("SELECT setval(pg_get_serial_sequence('spine.outbox', 'seq'), 2100000)")
    await other.publish()
    assert await depths(engine) == {engine.workspace_id: 1, other.workspace_id: 1}


async def test_few_rows_left_of_many_are_few(engine: Engine) -> None:
    """After a long backlog was relayed, the few rows that wait in its large table are counted, vacuumed or not."""
    other = await neighbour(engine)
    await fill(engine, ROWS)
    await engine.pool.execute("DELETE FROM spine.outbox")
    assert await depths(engine) == {}
    await engine.publish(count=2)
    await other.publish()
    assert await depths(engine) == {engine.workspace_id: 2, other.workspace_id: 1}
    await engine.pool.execute("VACUUM spine.outbox")
    assert await depths(engine) == {engine.workspace_id: 2, other.workspace_id: 1}


async def test_many_rows_are_estimated_from_a_part_of_them(engine: Engine) -> None:
    """Of a long backlog a bounded number of blocks is read; from them each workspace's rows are estimated."""
    others = [await neighbour(engine) for _ in range(2)]
    await fill(engine, ROWS)
    await fill(others[0], ROWS // 2)
    await fill(others[1], 1)
    found = await depths(engine)
    assert ROWS * 0.6 < found[engine.workspace_id] < ROWS * 1.4
    assert ROWS * 0.2 < found[others[0].workspace_id] < ROWS * 0.8
    assert found.get(others[1].workspace_id, 0) < 50
    await fill(engine, ROWS * 2)
    blocks = await engine.pool.fetchval("SELECT pg_relation_size('spine.outbox') / 8192")
    (plan,) = orjson.loads(
        await engine.pool.fetchval("EXPLAIN (ANALYZE, BUFFERS, FORMAT json) SELECT * FROM spine.outbox_depths()")
    )
    top: dict[str, Any] = plan["Plan"]
    assert top["Shared Hit Blocks"] + top["Shared Read Blocks"] < 800 < blocks // 3
