"""Partitions: made by every process, dropped without making anybody wait, and rows moved out of the default partition."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import orjson
import pytest
from ulid import ULID

from spine.kernel.database import migrate, open_pool
from spine.kernel.metrics import exposition
from tests.api import serve
from tests.delivery_engine import Engine
from tests.receiver import Receiver
from workers.maintenance import default_partition
from workers.maintenance.default_partition import empty_default_partition
from workers.maintenance.lease import Lease
from workers.maintenance.partitions import rotate_partitions
from workers.maintenance.table_locks import retry_lock

RETENTION = timedelta(days=30)
DROP = "SELECT spine.partitions_drop(now() - interval '30 days', 'events')"


def days_from_now(days: float) -> datetime:
    """The time so many days from now; negative ones are past."""
    return datetime.now(UTC) + timedelta(days=days)


def partition_name(parent: str, days: float) -> str:
    """The name of the partition of that day."""
    return f"{parent}_{days_from_now(days):%Y%m%d}"


@pytest.fixture
async def worker_pool(engine: Engine) -> AsyncIterator[Any]:
    """A pool of the worker role, with the settings of the product."""
    pool = await open_pool(engine.url, "spine_worker", "tests", 4)
    try:
        yield pool
    finally:
        await pool.close()


@pytest.fixture
def lease(worker_pool: Any) -> Lease:
    """The lease of maintenance."""
    return Lease(worker_pool, "maintenance", "test", 30)


async def drop_days(engine: Engine, first: int, last: int) -> None:
    """Drop the partitions of these days, as if no process had made them."""
    for days in range(first, last + 1):
        for parent in ("events", "deliveries_closed"):
            await engine.pool.execute(f"DROP TABLE IF EXISTS spine.{partition_name(parent, days)}")


async def accept_at(pool: Any, engine: Engine, days: float, count: int = 1) -> list[str]:
    """Accept events with the API's statement, as an API process whose clock shows that time. Returns their ids."""
    event_ids = [f"evt_{ULID.from_datetime(days_from_now(days))}" for _ in range(count)]
    bodies = [orjson.dumps({"id": id, "type": "thing.happened", "data": {}}) for id in event_ids]
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT set_config('app.ws', $1, true)", engine.workspace_id)
        await connection.execute(
            "SELECT spine.events_put($1::text[], $2::text[], $3::bytea[])",
            event_ids,
            ["thing.happened"] * count,
            bodies,
        )
    return event_ids


async def table_of(engine: Engine, id: str) -> str | None:
    """The partition that holds an event, found through the parent."""
    found: str | None = await engine.pool.fetchval(
        "SELECT c.relname FROM spine.events e JOIN pg_class c ON c.oid = e.tableoid WHERE e.workspace_id = $1 AND e.id = $2",
        engine.workspace_id,
        id,
    )
    return found


async def rows_in_default(engine: Engine) -> int:
    """The rows of both default partitions."""
    rows: int = await engine.pool.fetchval(
        "SELECT (SELECT count(*) FROM spine.events_default) + (SELECT count(*) FROM spine.deliveries_closed_default)"
    )
    return rows


async def test_weeks_without_a_worker_mend_themselves(engine: Engine, receiver: Receiver) -> None:
    """Events accepted on 13 days without partitions are delivered, and each moves into the partition of its day."""
    await engine.endpoint(receiver.url("/hook"))
    await drop_days(engine, -13, 7)
    event_ids = {days: await accept_at(engine.pool, engine, days, 5) for days in range(-12, 1)}
    assert await rows_in_default(engine) == 65
    async with engine.running_worker():
        await engine.until_states(delivered=65)

        async def mended() -> bool:
            return await rows_in_default(engine) == 0 and await engine.pool.fetchval(
                "SELECT to_regclass($1) IS NOT NULL", "spine." + partition_name("events", 7)
            )

        await engine.until(mended)
    for days, ids in event_ids.items():
        assert {await table_of(engine, id) for id in ids} == {partition_name("events", days)}
    assert len(await engine.deliveries(state="delivered")) == 65
    assert {call.event_id for call in receiver.to("/hook")} == {id for ids in event_ids.values() for id in ids}


async def test_a_clock_eight_days_fast_is_mended(engine: Engine, worker_pool: Any, lease: Lease) -> None:
    """Rows of an API whose clock is fast get partitions of their own; the days before them are made as well."""
    await drop_days(engine, 6, 7)
    ids = {days: await accept_at(engine.pool, engine, days) for days in (7, 8, 40)}
    async with worker_pool.acquire() as connection:
        await rotate_partitions(connection, lease, RETENTION)
    for days, [id] in ids.items():
        assert await table_of(engine, id) == partition_name("events", days)
    for days in (6, 7):
        name = "spine." + partition_name("deliveries_closed", days)
        assert await engine.pool.fetchval("SELECT to_regclass($1) IS NOT NULL", name)
    assert await rows_in_default(engine) == 0


async def test_each_row_is_visible_once_while_rows_move(
    engine: Engine, worker_pool: Any, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers of the whole table find every row once at any time of the move, which takes many batches."""
    monkeypatch.setattr(default_partition, "BATCH_BLOCKS", 1)
    await drop_days(engine, -3, 7)
    for days in (-2, -1, 0):
        await accept_at(engine.pool, engine, days, 400)
    counts = []

    async def read() -> None:
        while True:
            counts.append(await engine.pool.fetchval("SELECT count(*) FROM spine.events"))

    reading = asyncio.create_task(read())
    async with worker_pool.acquire() as connection:
        await empty_default_partition(connection, lease, "events", RETENTION)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert set(counts) == {1200}
    assert len(counts) > 5
    assert await engine.pool.fetchval("SELECT count(*) FROM spine.events_default") == 0


async def test_changes_during_the_move_are_kept(engine: Engine, worker_pool: Any) -> None:
    """A row that is erased, inserted or deleted during the move is so afterwards too, before or after its copy."""
    await drop_days(engine, -2, 7)
    app = await open_pool(engine.url, "spine_app", "tests", 1)
    try:
        erased_first, erased_later, deleted_first, deleted_later, kept = await accept_at(app, engine, -1, 5)
        days = [days_from_now(-1).date()]
        move, blocks = await worker_pool.fetchrow("SELECT * FROM spine.default_move_begin('events', $1)", days)
        await _erase(app, engine, erased_first)
        await engine.pool.execute("DELETE FROM spine.events WHERE id = $1", deleted_first)
        [before] = await accept_at(app, engine, -1)
        await worker_pool.fetchval("SELECT spine.default_move_copy('events', $1, 0, $2)", move, blocks + 1)
        await _erase(app, engine, erased_later)
        await engine.pool.execute("DELETE FROM spine.events WHERE id = $1", deleted_later)
        [after], [other_day] = await accept_at(app, engine, -1), await accept_at(app, engine, 0)
        await worker_pool.fetch("SELECT * FROM spine.default_move_finish('events', $1)", move)
        [late] = await accept_at(app, engine, 0)
    finally:
        await app.close()
    rows = await engine.pool.fetch(
        "SELECT id, body IS NULL AS erased, (SELECT relname FROM pg_class c WHERE c.oid = e.tableoid) AS place FROM spine.events e"
    )
    day, default = partition_name("events", -1), "events_default"
    assert {(row["id"], row["erased"], row["place"]) for row in rows} == {
        *((id, True, day) for id in (erased_first, erased_later)),
        *((id, False, day) for id in (kept, before, after)),
        *((id, False, default) for id in (other_day, late)),
    }
    assert len(rows) == 7


async def _erase(app: Any, engine: Engine, id: str) -> None:
    async with app.acquire() as connection, connection.transaction():
        await connection.execute("SELECT set_config('app.ws', $1, true)", engine.workspace_id)
        await connection.execute("UPDATE spine.events SET body = NULL, erased_at = now() WHERE id = $1", id)


async def test_a_move_that_was_begun_again_changes_nothing(engine: Engine, worker_pool: Any) -> None:
    """Of two workers that move rows at once, the one that began first stops; the other one moves them all."""
    await drop_days(engine, -2, 7)
    [id] = await accept_at(engine.pool, engine, -1)
    begin = "SELECT * FROM spine.default_move_begin('events', $1)"
    days = [days_from_now(-1).date()]
    frozen, _ = await worker_pool.fetchrow(begin, days)
    move, blocks = await worker_pool.fetchrow(begin, days)
    for statement in (
        "SELECT spine.default_move_copy('events', $1, 0, 1)",
        "SELECT * FROM spine.default_move_finish('events', $1)",
    ):
        with pytest.raises(asyncpg.ObjectInUseError):
            await worker_pool.fetch(statement, frozen)
    await worker_pool.fetchval("SELECT spine.default_move_copy('events', $1, 0, $2)", move, blocks)
    await worker_pool.fetch("SELECT * FROM spine.default_move_finish('events', $1)", move)
    assert await table_of(engine, id) == partition_name("events", -1)


async def test_a_day_that_cannot_be_made_stops_neither_the_others_nor_dropping(
    engine: Engine, worker_pool: Any, lease: Lease
) -> None:
    """With the name of one day taken, the other days are made, rows of others move, and old days are dropped."""
    await _old_partition(engine)
    await drop_days(engine, -1, 7)
    for days in (0, 3):
        await engine.pool.execute(f"CREATE TABLE spine.{partition_name('events', days)} (taken boolean)")
    [stuck], [moved] = await accept_at(engine.pool, engine, 0), await accept_at(engine.pool, engine, -1)
    async with worker_pool.acquire() as connection:
        await rotate_partitions(connection, lease, RETENTION)
    made = await engine.pool.fetch(
        "SELECT relname AS name FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE inhparent = 'spine.events'::regclass"
    )
    expected = {partition_name("events", days) for days in range(-1, 8) if days not in (0, 3)}
    assert {row["name"] for row in made} == expected | {"events_default"}
    assert await table_of(engine, moved) == partition_name("events", -1)
    assert await table_of(engine, stuck) == "events_default"
    assert b'spine_default_partition_rows{table="events"} 1.0' in exposition()[0]


async def test_each_day_is_made_on_its_own(engine: Engine, worker_pool: Any) -> None:
    """A day whose name is taken is reported with its problem; the days before and after it are made in the same call."""
    await drop_days(engine, 2, 7)
    await engine.pool.execute(f"CREATE TABLE spine.{partition_name('events', 4)} (taken boolean)")
    rows = await worker_pool.fetch("SELECT * FROM spine.partitions_ensure(7)")
    problems = {row["partition"]: row["problem"] for row in rows}
    assert len(problems) == 12
    failed = {name: problem for name, problem in problems.items() if problem is not None}
    assert list(failed) == [partition_name("events", 4)]
    assert "already exists" in failed[partition_name("events", 4)]
    assert [await is_made(engine, days) for days in (2, 3, 5, 6, 7)] == [True] * 5
    assert await worker_pool.fetch("SELECT * FROM spine.partitions_ensure(7)") != []  # it is tried again


async def _old_partition(engine: Engine) -> None:
    await engine.pool.execute(
        "CREATE TABLE spine.events_20200101 PARTITION OF spine.events FOR VALUES FROM ('evt_01DXF6DT00') TO ('evt_01DXHRTK00')"
    )


async def test_dropping_makes_no_accept_wait_for_a_reader(engine: Engine) -> None:
    """While a transaction reads the partition, dropping waits and accepting goes through; then it is dropped."""
    await _old_partition(engine)
    exists = "SELECT to_regclass('spine.events_20200101') IS NOT NULL"
    async with engine.pool.acquire() as reader, engine.pool.acquire() as connection:
        transaction = reader.transaction()
        await transaction.start()
        await reader.fetchval("SELECT count(*) FROM spine.events")
        refused = 0

        async def drop(statement: str) -> Any:
            nonlocal refused
            try:
                return await connection.fetchval(statement)
            except asyncpg.LockNotAvailableError:
                refused += 1
                raise

        dropping = asyncio.create_task(retry_lock(drop, DROP))
        async with asyncio.timeout(60):
            while refused < 3:
                await engine.publish()
        assert not dropping.done()
        assert await reader.fetchval(exists)
        await transaction.rollback()
        assert await dropping == "events_20200101"
    assert not await engine.pool.fetchval(exists)


async def test_making_a_day_makes_no_accept_wait_for_a_reader(engine: Engine, worker_pool: Any) -> None:
    """While a transaction reads events of today, the next days are made and accepting goes through."""
    await drop_days(engine, 5, 7)
    [id] = await engine.publish()
    async with engine.pool.acquire() as reader, reader.transaction():
        await reader.fetchval(
            f"SELECT count(*) FROM spine.events WHERE id = '{id}'"  # a constant: the planner opens one partition
        )
        made = await worker_pool.fetch("SELECT * FROM spine.partitions_ensure(7)")
        async with asyncio.timeout(60):
            await engine.publish()
    assert [row["problem"] for row in made] == [None] * 6


async def test_rows_of_days_never_made_are_deleted_after_the_retention(
    engine: Engine, worker_pool: Any, lease: Lease
) -> None:
    """Old rows of the default partition vanish. A delivery that closed late stays until its own retention is over."""
    [old] = await accept_at(engine.pool, engine, -45)
    await engine.pool.execute("UPDATE spine.events SET accepted_at = now() - interval '45 days' WHERE id = $1", old)
    closed = {days: f"dlv_{ULID.from_datetime(days_from_now(-45))}" for days in (-31, -29)}
    for days, id in closed.items():
        await engine.pool.execute(
            "INSERT INTO spine.deliveries_closed (workspace_id, id, event_id, type, endpoint_id, state, series, attempts, "
            "accepted_at, created_at, closed_at, xid) VALUES ($1, $2, $3, 'x', 'whe_x', 'dead', 1, '[]', now(), now(), "
            "now() + make_interval(days => $4), pg_current_xact_id())",
            engine.workspace_id,
            id,
            old,
            days,
        )
    async with worker_pool.acquire() as connection:
        await rotate_partitions(connection, lease, RETENTION)
    assert await table_of(engine, old) is None
    left = await engine.pool.fetch("SELECT id FROM spine.deliveries_closed")
    assert [row["id"] for row in left] == [closed[-29]]
    assert b'spine_default_partition_rows{table="deliveries_closed"} 0.0' in exposition()[0]


async def test_a_large_default_partition_does_not_prevent_the_next_days(
    engine: Engine, worker_pool: Any, lease: Lease
) -> None:
    """With more rows that must stay than may be read under a lock, the missing days are made by the move."""
    await drop_days(engine, 2, 7)
    await engine.pool.execute(
        "INSERT INTO spine.deliveries_closed (workspace_id, id, event_id, type, endpoint_id, state, series, attempts, "
        "accepted_at, created_at, xid) SELECT $1, 'dlv_' || spine.ulid_time(now() - interval '45 days') || lpad(n::text, 16, '0'), "
        "'evt_x', repeat('x', 1500), 'whe_x', 'dead', 1, '[]', now(), now(), pg_current_xact_id() FROM generate_series(1, 7000) AS n",
        engine.workspace_id,
    )
    problems = [row["problem"] for row in await worker_pool.fetch("SELECT * FROM spine.partitions_ensure(7)")]
    assert problems.count("the default partition holds too many rows") == 6
    async with worker_pool.acquire() as connection:
        await rotate_partitions(connection, lease, RETENTION)
    for days in range(2, 8):
        name = "spine." + partition_name("deliveries_closed", days)
        assert await engine.pool.fetchval("SELECT to_regclass($1) IS NOT NULL", name)
    assert await engine.pool.fetchval("SELECT count(*) FROM spine.deliveries_closed") == 7000


async def test_partitions_made_later_are_like_those_of_the_parent(engine: Engine, worker_pool: Any) -> None:
    """A partition has the parent's indexes, each once and attached, and forced row security."""
    await drop_days(engine, -1, -1)
    await accept_at(engine.pool, engine, -1)
    days = [days_from_now(-1).date()]
    move, blocks = await worker_pool.fetchrow("SELECT * FROM spine.default_move_begin('events', $1)", days)
    await worker_pool.fetchval("SELECT spine.default_move_copy('events', $1, 0, $2)", move, blocks)
    await worker_pool.fetch("SELECT * FROM spine.default_move_finish('events', $1)", move)
    for table in (partition_name("events", -1), partition_name("events", 3), "events_default"):
        row = await engine.pool.fetchrow(
            "SELECT c.relforcerowsecurity, c.relrowsecurity, (SELECT count(*) FROM pg_index i WHERE i.indrelid = c.oid) AS indexes, "
            "(SELECT count(*) FROM pg_index i JOIN pg_inherits h ON h.inhrelid = i.indexrelid WHERE i.indrelid = c.oid) AS attached, "
            "(SELECT count(*) FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'c') AS checks "
            "FROM pg_class c WHERE c.oid = to_regclass($1)",
            f"spine.{table}",
        )
        assert tuple(row.values()) == (True, True, 2, 2, 0), table


async def is_made(engine: Engine, days: int) -> bool:
    """Whether the partition of events of that day exists."""
    found: bool = await engine.pool.fetchval(
        "SELECT to_regclass($1) IS NOT NULL", "spine." + partition_name("events", days)
    )
    return found


async def test_migrations_make_the_partitions(engine: Engine) -> None:
    """Migrating a database that is at the newest revision makes the days that are missing."""
    await drop_days(engine, 1, 3)
    await migrate(engine.url)
    assert [await is_made(engine, days) for days in (1, 2, 3)] == [True] * 3


async def test_the_api_makes_the_partitions(engine: Engine) -> None:
    """An API process without any worker makes the days that are missing when it starts."""
    await drop_days(engine, 1, 3)

    async def all_made() -> bool:
        return all([await is_made(engine, days) for days in (1, 2, 3)])

    with serve(engine.url, engine.redis_url):
        await engine.until(all_made)
