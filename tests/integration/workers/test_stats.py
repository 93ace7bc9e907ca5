"""The figures of the queues: exact or estimated, and never read from a whole backlog."""

import json
from typing import Any

import pytest

from spine.kernel.database import WORKER_PLANS
from spine.kernel.metrics import exposition
from spine.webhooks import stat_queries
from tests.delivery_engine import Engine
from workers.maintenance import stats
from workers.maintenance.stats import QueueObserver

ROWS = 8_000
BLOCKS = 20
FILL = """
    INSERT INTO spine.deliveries_open (workspace_id, id, event_id, type, endpoint_id, state, due_at, accepted_at)
    SELECT $1, 'dlv_' || lpad(n::text, 26, '0'), 'evt', 'thing.happened', 'whe',
           CASE WHEN n % 4 = 0 THEN 'held' ELSE 'pending' END, CASE WHEN n % 4 > 0 THEN now() - interval '1 min' END, now()
      FROM generate_series(1, $2) n
"""
FILL_HISTORY = """
    INSERT INTO spine.deliveries_closed
           (workspace_id, id, event_id, type, endpoint_id, state, series, attempts, accepted_at, created_at, xid)
    SELECT $1, 'dlv_' || lpad(n::text, 26, '0'), 'evt', 'thing.happened', 'whe',
           CASE WHEN n > 5 THEN 'delivered' ELSE 'dead' END, 1, '[]', now(), now(), '1'
      FROM generate_series(1, 8) n
"""


def _shown(name: str) -> float:
    (line,) = (line for line in exposition()[0].decode().splitlines() if line.startswith(name))
    return float(line.rpartition(" ")[2])


async def _observe(engine: Engine) -> tuple[float, float, float]:
    async with engine.pool.acquire() as connection:
        await QueueObserver().observe(connection)
    return (
        _shown('spine_queue_open{cargo="delivery",state="held"}'),
        _shown('spine_queue_due{cargo="delivery"}'),
        _shown('spine_queue_oldest_due_age_seconds{cargo="delivery"}'),
    )


async def test_counts_are_exact_or_estimates_of_a_sample(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short queue is counted, a long one is estimated, and a long one that was emptied is counted again."""
    monkeypatch.setattr(stat_queries, "SAMPLE_BLOCKS", BLOCKS)
    monkeypatch.setattr(stat_queries, "COUNT_LIMIT", 1_000)
    await engine.pool.execute(FILL, engine.workspace_id, 8)
    held, due, age_s = await _observe(engine)
    assert (held, due) == (2, 6)
    assert age_s >= 60
    await engine.pool.execute("DELETE FROM spine.deliveries_open")
    await engine.pool.execute(FILL, engine.workspace_id, ROWS)
    held, due, _ = await _observe(engine)
    assert ROWS / 16 < held < ROWS
    assert ROWS / 4 < due < 3 * ROWS
    await engine.pool.execute("DELETE FROM spine.deliveries_open WHERE id > 'dlv_' || lpad('8', 26, '0')")
    assert (await _observe(engine))[:2] == (2, 6)


async def test_a_long_queue_is_not_read(engine: Engine) -> None:
    """A count reads as many blocks as its sample has, however many the table has."""
    await engine.pool.execute(FILL, engine.workspace_id, ROWS)
    blocks = await engine.pool.fetchval(stat_queries.BLOCKS, "spine.deliveries_open")
    (sample,) = (sample for table, sample, _ in stat_queries.COUNTED if table == "spine.deliveries_open")
    plan = await engine.pool.fetchval(
        "EXPLAIN (ANALYZE, BUFFERS, FORMAT json) " + sample.replace("$1", str(100 * BLOCKS / blocks))
    )
    read = json.loads(plan)[0]["Plan"]
    assert blocks > 5 * BLOCKS
    assert read["Shared Hit Blocks"] + read["Shared Read Blocks"] < 3 * BLOCKS


async def test_what_is_not_sampled_walks_an_index(engine: Engine) -> None:
    """The oldest rows, the first rows of a table that has grown and the dead letters are found without a sequential scan."""
    statements: list[tuple[str, tuple[Any, ...]]] = [
        *((age, ()) for age in stat_queries.OLDEST),
        (stat_queries.DEAD_LETTERS, (10,)),
        *((first, ()) for _, _, first in stat_queries.COUNTED),
    ]
    async with engine.pool.acquire() as connection, connection.transaction():
        for name, value in (WORKER_PLANS | {"enable_sort": "off"}).items():
            await connection.execute(f"SET LOCAL {name} TO {value}")
        for statement, args in statements:
            plan = "\n".join(row[0] for row in await connection.fetch("EXPLAIN " + statement, *args))
            assert "Seq Scan" not in plan
            assert "Sort" not in plan


async def test_dead_letters_are_counted_up_to_a_limit(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few dead letters are counted; of many at least the limit is shown, or what Postgres last knew."""
    await engine.pool.execute(FILL_HISTORY, engine.workspace_id)
    observer = stats.QueueObserver()
    async with engine.pool.acquire() as connection:
        for limit, analyzed, expected in ((100, False, 5), (3, False, 3), (3, True, 5)):
            monkeypatch.setattr(stat_queries, "COUNT_LIMIT", limit)
            if analyzed:
                await connection.execute("ANALYZE spine.deliveries_closed")
            await observer.count_dead_letters(connection)
            await observer.observe(connection)
            assert _shown("spine_dead_letters") == expected
