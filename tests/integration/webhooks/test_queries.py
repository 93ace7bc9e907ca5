"""The hot SQL keeps to its indexes when the queue is long, and answers what it says."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import pytest

from spine.kernel.database import WORKER_PLANS
from spine.webhooks import queries, replay_queries
from spine.webhooks.replay_walk import closed_arguments
from tests.delivery_engine import Engine, running_engine
from workers.connection import fetch_each, write_each
from workers.webhooks.jobs import Placement

ROWS = 30_000
DUE = ROWS // 1000
BATCH = 1000
WAYS = {"Index Scan using deliveries_open_pkey on deliveries_open", "Tid Scan on deliveries_open"}


@pytest.fixture
async def engine(database: str, redis_url: str) -> AsyncIterator[Engine]:
    """A queue of parked rows, rows due far ahead, and a few that are due, most of them behind one endpoint."""
    async with running_engine(database, redis_url) as engine:
        endpoint = await engine.endpoint("http://127.0.0.1:9/", ["nothing.*"])
        (event_id,) = await engine.publish()
        await engine.pool.execute("DELETE FROM spine.outbox")
        await engine.pool.execute(
            "INSERT INTO spine.deliveries_open (workspace_id, id, event_id, type, endpoint_id, due_at, accepted_at) "
            "SELECT $1, 'dlv_' || lpad(n::text, 26, '0'), $2, 'thing.happened', $3, "
            "CASE WHEN n % 1000 = 0 THEN now() WHEN n % 2 = 0 THEN now() + interval '1 h' ELSE 'infinity' END, now() "
            "FROM generate_series(1, $4) n",
            engine.workspace_id,
            event_id,
            endpoint.id,
            ROWS,
        )
        await engine.pool.execute("ANALYZE spine.deliveries_open")
        yield engine


async def _plan(engine: Engine, query: str, *args: object, settings: Mapping[str, str] = MappingProxyType({})) -> str:
    async with engine.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        for name, value in settings.items():
            await connection.execute(f"SET LOCAL {name} TO {value}")
        rows = await connection.fetch("EXPLAIN " + query, *args)
        await transaction.rollback()
    return "\n".join(row[0] for row in rows)


async def test_claiming_does_not_read_the_queue(engine: Engine) -> None:
    """A claim walks the index of its kind; it never reads the whole queue, however long that is.

    Also with plans that were made while the queue was empty, when all indexes seem to cost the same.
    """
    for emptied in (False, True):
        if emptied:
            await engine.pool.execute("DELETE FROM spine.deliveries_open")
            await engine.pool.execute("VACUUM ANALYZE spine.deliveries_open")
        plans: dict[str, tuple[Any, ...]] = {
            "deliveries_open_due": (queries.DUE_LOOK, 100, 2, 0),
            "deliveries_open_turns": (queries.DUE_LOOK_IN_TURNS, 100, 2, 0, "", ["w"], 500, 32),
            "deliveries_open_waiting": (queries.PARKED_LOOK, ["w"], ["e"], [10]),
            "deliveries_open_pkey": (queries.CLAIM, "me", timedelta(seconds=30), ["w"], ["d"], [0]),
        }
        found = {}
        for index, (query, *args) in plans.items():
            plan = await _plan(engine, query, *args, settings=WORKER_PLANS)
            assert "Seq Scan on deliveries_open" not in plan
            found[index] = set(re.findall(r"using (deliveries_open_\w+)", plan))
        leases = {"deliveries_open_leased"}
        assert found == {index: {index} | (leases if n < 2 else set()) for n, index in enumerate(plans)}
    plan = await _plan(engine, queries.PARKED_FIND, "", 256, settings=WORKER_PLANS)
    assert "deliveries_open_waiting" in plan
    assert "Seq Scan on deliveries_open" not in plan


async def test_results_find_their_rows_by_key(engine: Engine) -> None:
    """What writes many rows finds each by its whole key, also with a plan that was made while the queue was empty."""
    ws, ids, ones, json = ["w"] * BATCH, [f"d{n}" for n in range(BATCH)], [1] * BATCH, ["{}"] * BATCH
    for emptied in (False, True):
        if emptied:
            await engine.pool.execute("DELETE FROM spine.deliveries_open")
            await engine.pool.execute("VACUUM ANALYZE spine.deliveries_open")
        for query, args in (
            (queries.DELIVERED_PUT, (ws, ids, ones, json, ["w"], ["e"])),
            (queries.FAILED_PUT, (ws, ids, ones, ones, [1.0] * BATCH, json)),
            (queries.DEAD_PUT, (ws, ids, ones, ones, ["r"] * BATCH, json)),
            (queries.LEASES_RELEASE, (ws, ids, ones, "me")),
            (queries.LEASES_RENEW, ("me", ws, ids, timedelta(seconds=30))),
        ):
            plan = await _plan(engine, query, *args, settings=WORKER_PLANS)
            scans = {line.strip(" ->").rpartition(" ")[0] for line in plan.replace("  (cost", "\n").splitlines()}
            assert {scan for scan in scans if "Scan" in scan and "deliveries_open" in scan} == WAYS
            assert "Index Cond: ((workspace_id = r.workspace_id) AND (id = r.id))" in plan


async def test_the_relay_writes_in_no_loop(engine: Engine) -> None:
    """Whatever the planner takes the lists for: events are found by the index, and theirs are told from the others' by a hash."""
    await engine.pool.execute("VACUUM (ANALYZE) spine.outbox")
    made = [[1], *([["x"]] * 5), [datetime.now(UTC)]]
    plan = await _plan(
        engine,
        queries.OUTBOX_DONE,
        [1],
        "me",
        timedelta(seconds=30),
        *made,
        [0],
        *made,
        ["r"],
        [2],
        True,
        settings=WORKER_PLANS,
    )
    assert plan.count("hashed SubPlan") == 2
    assert "Nested Loop" not in plan
    assert "outbox_order" in plan
    assert "Tid Scan on outbox" in plan


async def test_the_relay_walks_the_outbox_by_workspace(engine: Engine) -> None:
    """The workspaces that have events, and the events of each, are found by one index, however many events wait."""
    await engine.publish(count=5000)
    for analyzed in (False, True):
        if analyzed:
            await engine.pool.execute("VACUUM (ANALYZE) spine.outbox")
        waiting = await _plan(engine, queries.OUTBOX_WAITING, "", 64, settings=WORKER_PLANS)
        take = await _plan(engine, queries.OUTBOX_TAKE, ["w"], [0], [100], [100], 10**6, settings=WORKER_PLANS)
        advance = await _plan(engine, queries.OUTBOX_ADVANCE, ["w"], [1], ["e"], settings=WORKER_PLANS)
        assert "(seq = p.seq)" in advance
        beside = await _plan(
            engine, queries.OUTBOX_READ_BESIDE, 16, 16, 256, 10**6, "", 64, ["w"], settings=WORKER_PLANS
        )
        for plan, probes in ((waiting, 2), (take, 2), (beside, 3)):
            assert plan.count("outbox_pkey on outbox") == probes
            assert "outbox_order" not in plan
            assert "outbox_order" not in plan
            assert "Sort Key: o.workspace_id" not in plan


async def test_a_part_is_written_by_who_has_locked_it(engine: Engine) -> None:
    """A worker that has read a row without a lock does not delete it after another one has written a part of it."""
    await engine.publish()
    seq = await engine.pool.fetchval("SELECT seq FROM spine.outbox")
    nothing: list[list[Any]] = [[] for _ in range(17)]
    await engine.pool.execute(queries.OUTBOX_ADVANCE, [engine.workspace_id], [seq], ["whe_1"])
    for locked, expected in ((False, []), (True, [seq])):
        done = await engine.pool.fetch(queries.OUTBOX_DONE, [seq], "me", timedelta(seconds=30), *nothing, locked)
        assert [row["seq"] for row in done] == expected


async def test_the_walk_goes_around(engine: Engine) -> None:
    """From any place the walk meets each workspace that has events once, and says which are live."""
    others = [Engine(engine.url, engine.redis_url, engine.pool) for _ in range(4)]
    for n, other in enumerate(others):
        await other.create_workspace("live" if n % 2 else "test")
        await other.publish(count=3)
    around = sorted((other.workspace_id, n % 2 == 1) for n, other in enumerate(others))
    for place, expected in (
        ("", around),
        (around[1][0], [*around[2:], *around[:2]]),
        (around[3][0], around),
        ("wsp_" + "Z" * 26, around),
    ):
        for most in (1, 3, 64):
            rows = await engine.pool.fetch(queries.OUTBOX_WAITING, place, most)
            assert [tuple(row) for row in rows] == expected[:most]


async def test_large_payloads_are_left_out(engine: Engine) -> None:
    """Beyond its bytes a workspace's rows come without their payloads, those of the other workspaces with them."""
    other = Engine(engine.url, engine.redis_url, engine.pool)
    await other.create_workspace()
    await engine.publish(count=10, data="x" * 10_000)
    await other.publish(count=10)
    turns = ([engine.workspace_id, other.workspace_id], [0, 0], [6, 20], [2, 0], 25_000)
    rows = await engine.pool.fetch(queries.OUTBOX_TAKE, *turns)
    large, small = (rows[:8], rows[8:])
    assert [row["left_out"] for row in large] == [False] * 3 + [True] * 5
    assert [row["body"] is None for row in large] == [False] * 3 + [True] * 5
    assert [row["seq"] for row in large] == sorted(row["seq"] for row in large)
    assert [(row["workspace_id"], row["left_out"]) for row in small] == [(other.workspace_id, False)] * 10


async def _claim(
    engine: Engine, worker: str, rows: Sequence[Any], placement: Placement = Placement.LEASED
) -> list[Any]:
    return list(
        await engine.pool.fetch(
            queries.CLAIM,
            worker,
            timedelta(seconds=30),
            [row["workspace_id"] for row in rows],
            [row["id"] for row in rows],
            [int(placement)] * len(rows),
        )
    )


_READ = """
    SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0)::integer FROM pg_stat_xact_all_tables
     WHERE schemaname = 'spine' AND relname ~ '^(deliveries|events|outbox)'
"""


@pytest.mark.parametrize("role", ["spine_app", "spine_worker"])
@pytest.mark.parametrize("change", ["status = 'disabled'", "deleted_at = now()"])
async def test_a_step_after_an_endpoint_reads_a_bounded_number_of_rows(engine: Engine, role: str, change: str) -> None:
    """In a queue of 30,000 deliveries a step of 100 reads a few hundred rows, also with a plan that was made for an empty queue."""
    endpoint_id = await engine.pool.fetchval("SELECT id FROM spine.webhook_endpoints")
    other = await engine.endpoint("http://127.0.0.1:9/other")
    async with engine.pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT set_config('app.ws', $1, true)", engine.workspace_id)
        await connection.execute(f"SET LOCAL role TO {role}")
        for name, value in WORKER_PLANS.items() if role == "spine_worker" else ():
            await connection.execute(f"SET LOCAL {name} TO {value}")
        for id, steps in ((other.id, 7), (endpoint_id, 3)):
            await connection.execute(f"UPDATE spine.webhook_endpoints SET {change} WHERE id = $1", id)
            for step in range(steps):
                if id == other.id or step == 0:
                    await connection.execute("SELECT spine.endpoint_changed($1, $2)", engine.workspace_id, id)
                read = await connection.fetchval(_READ)
                row = await connection.fetchrow(
                    "SELECT * FROM spine.endpoint_follow($1, $2, 100)", engine.workspace_id, id
                )
                assert await connection.fetchval(_READ) - read <= 500
            assert (row["done"], row["moved"]) == (id == other.id, 0 if id == other.id else 100)


async def test_a_step_of_a_replay_reads_a_bounded_number_of_rows(engine: Engine) -> None:
    """A window of 100 in a history of 30,000 deliveries that match nothing reads about as many rows, whatever the filter is."""
    endpoint_id = await engine.pool.fetchval("SELECT id FROM spine.webhook_endpoints")
    await engine.pool.execute(
        "INSERT INTO spine.deliveries_closed "
        "(workspace_id, id, event_id, type, endpoint_id, state, series, attempts, accepted_at, created_at, closed_at, xid) "
        "SELECT workspace_id, 'dlv_01M7XZQ13P' || right(id, 16), 'evt_01M7XZQ13P' || right(id, 16), type, endpoint_id, "
        "CASE WHEN right(id, 1) < '5' THEN 'dead' ELSE 'delivered' END, 1, '[]', now(), now(), now() - interval '1 h', '3' "
        "FROM spine.deliveries_open"
    )
    await engine.pool.execute(
        "INSERT INTO spine.events (workspace_id, id, type, body) SELECT workspace_id, event_id, type, '' FROM spine.deliveries_closed"
    )
    await engine.pool.execute("ANALYZE spine.deliveries_closed, spine.events")
    before = datetime.now(UTC)
    for status in ("dead", "delivered"):
        for endpoint in (endpoint_id, None):
            filter = {"status": status, "types": ["none"]} | ({"endpoint_id": endpoint} if endpoint else {})
            for query, args in (
                (replay_queries.closed_count(status, endpoint), ()),
                (replay_queries.closed_reopen(status, endpoint), (50, "rpl_1")),
            ):
                given = closed_arguments(engine.workspace_id, filter, "dlv_01M7XZQ13P", before, 100)
                assert await _rows_read(engine, query, *given, *args) <= 400
    since = before - timedelta(days=30_000)
    missing = (engine.workspace_id, "", 100, None, None, since, before, endpoint_id, 50, False)
    assert await _rows_read(engine, replay_queries.MISSING_FIND, *missing) <= 1000


async def _rows_read(engine: Engine, query: str, *args: object) -> int:
    """The rows that a statement of the worker reads, with a plan that fits all parameters."""
    async with engine.pool.acquire() as connection, connection.transaction():
        for name, value in {**WORKER_PLANS, "plan_cache_mode": "force_generic_plan"}.items():
            await connection.execute(f"SET LOCAL {name} TO {value}")
        before: int = await connection.fetchval(_READ)
        await connection.fetch(query, *args)
        after: int = await connection.fetchval(_READ)
    return after - before


async def test_a_claim_takes_only_what_is_due(engine: Engine) -> None:
    """Rows due ahead, parked or leased are left; what is claimed is leased and not claimed twice."""
    rows = await engine.pool.fetch(queries.DUE_LOOK, 1000, 1, 0)
    assert len(rows) == DUE
    assert all(row["due_at"] is not None and row["size"] is not None and not row["live"] for row in rows)
    assert len(await _claim(engine, "me", rows)) == DUE
    assert await _claim(engine, "you", rows) == []
    assert await engine.pool.fetch(queries.DUE_LOOK, 1000, 1, 0) == []
    (none,) = await engine.pool.fetch(queries.DUE_LOOK_IN_TURNS, 1000, 1, 0, "", [], 500, 32)
    assert (none["id"], none["found"], none["probes"]) == (None, 0, 1)


async def test_workers_choose_different_rows(engine: Engine) -> None:
    """Workers that look at the same time prefer different rows; a worker alone gets all of them."""
    looks = [{row["id"] for row in await engine.pool.fetch(queries.DUE_LOOK, 8, 2, rank)} for rank in (0, 1)]
    in_turns = [
        {row["id"] for row in await engine.pool.fetch(queries.DUE_LOOK_IN_TURNS, 8, 2, rank, "", [], 500, 32)}
        for rank in (0, 1)
    ]
    for mine, others in (looks, in_turns):
        assert len(mine) == len(others) == 8
        assert len(mine & others) < 8
    assert len(await engine.pool.fetch(queries.DUE_LOOK, 1000, 2, 0)) == DUE


async def test_parked_and_held_rows_are_not_loaded(engine: Engine) -> None:
    """Rows that a claim parks or holds get that state, without a lease and without being returned."""
    rows = await engine.pool.fetch(queries.DUE_LOOK, 10, 1, 0)
    assert await _claim(engine, "me", rows[:5], Placement.PARKED) == []
    assert await _claim(engine, "me", rows[5:], Placement.HELD) == []
    found = await engine.pool.fetch(
        "SELECT state, due_at = 'infinity' AS parked, leased_by FROM spine.deliveries_open WHERE id = ANY ($1) ORDER BY id",
        [row["id"] for row in rows],
    )
    assert sorted(map(tuple, found), key=str) == [("held", None, None)] * 5 + [("pending", True, None)] * 5


async def test_a_body_comes_once_per_claim(engine: Engine) -> None:
    """All rows of the fixture have one event: the body comes with the first row only, and its size with each look."""
    rows = await engine.pool.fetch(queries.DUE_LOOK, 20, 1, 0)
    body = await engine.pool.fetchval("SELECT body FROM spine.events")
    assert {row["size"] for row in rows} == {len(body)}
    leased = await _claim(engine, "me", rows)
    assert [row["body"] for row in leased] == [body] + [None] * 19
    assert [row["has_body"] for row in leased] == [True] + [False] * 19


async def test_a_result_counts_once(engine: Engine) -> None:
    """A failure is written only for the attempt that it belongs to; a second result of the same attempt changes nothing."""
    (row,) = await _claim(engine, "me", await engine.pool.fetch(queries.DUE_LOOK, 1, 1, 0))
    put = ([row["workspace_id"]], [row["id"]], [1], [0], [1.0], ['{"number": 1}'])
    assert await engine.pool.execute(queries.FAILED_PUT, *put) == "UPDATE 1"
    assert await engine.pool.execute(queries.FAILED_PUT, *put) == "UPDATE 0"
    stale = ([row["workspace_id"]], [row["id"]], [1], [0], ["attempts_exhausted"], ["{}"])
    assert await engine.pool.fetch(queries.DEAD_PUT, *stale) == []
    late = ([row["workspace_id"]], [row["id"]], [1], ['{"number": 1}'])
    assert await engine.pool.execute(queries.DELIVERED_PUT, *late, [], []) == "INSERT 0 1"


async def test_an_event_is_looked_up_by_its_key_whatever_the_planner_believes(engine: Engine) -> None:
    """In tables that the planner takes for empty one index seems as good as another; only the key fits a look-up."""
    await engine.pool.execute("TRUNCATE spine.outbox, spine.events")
    await engine.pool.execute("VACUUM (ANALYZE) spine.events")
    for query, args in (
        (queries.OUTBOX_READ, (100, 16, 256, 10**6)),
        (queries.OUTBOX_TAKE, (["w"], [0], [100], [100], 10**6)),
    ):
        plan = await _plan(engine, query, *args, settings=WORKER_PLANS)
        assert plan.count("_pkey on events") == plan.count(" on events_")
        assert "_pkey on events" in plan


async def test_listeners_are_found_by_their_patterns(engine: Engine) -> None:
    """Who listens to a type is looked up by the patterns that it meets, whatever the planner believes of the tables."""
    await engine.pool.execute("VACUUM (ANALYZE) spine.subscriptions, spine.webhook_endpoints")
    asked = [["w"], ["a.b"], [datetime.now(UTC)], [None], 1000]
    for query, args in ((queries.OUTBOX_READ, (100, 16, 256, 10**6)), (queries.SUBSCRIBERS_FIND, asked)):
        plan = await _plan(engine, query, *args, settings=WORKER_PLANS)
        assert "Index Scan using subscriptions_pkey on subscriptions" in plan
        assert "Index Cond: ((ROW(workspace_id, pattern, endpoint_id) > ROW(" in plan
        assert "Sort Key: s." not in plan  # so that a page ends the scan
        assert "webhook_endpoints_pkey on webhook_endpoints" in plan
        assert "Seq Scan on subscriptions" not in plan


async def test_the_feed_has_an_index_of_its_own(engine: Engine) -> None:
    """A page of the feed is a walk along its index; only events of one transaction are sorted."""
    query = 'SELECT id FROM spine.events WHERE workspace_id COLLATE "POSIX" = $1 ORDER BY xid, id LIMIT 10'
    async with engine.pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL enable_seqscan TO off")
        rows = await connection.fetch("EXPLAIN " + query, "w")
    plan = "\n".join(row[0] for row in rows)
    assert "workspace_id_xid_idx" in plan
    assert "Incremental Sort" in plan


async def test_a_result_is_not_lost_to_a_renewal_of_its_lease(engine: Engine) -> None:
    """What is recorded while another connection renews the lease waits for that, and is recorded."""
    lease = timedelta(seconds=30)
    rows = await _claim(engine, "me", await engine.pool.fetch(queries.DUE_LOOK, 3, 1, 0))
    (done, failed, dead) = ((row["workspace_id"], row["id"]) for row in rows)
    delivered: tuple[Any, ...] = (queries.DELIVERED_PUT, [done], [done[0]], [done[1]], [1], ["{}"], [], [])
    retrying = (queries.FAILED_PUT, [failed], [failed[0]], [failed[1]], [1], [0], [3600.0], ["{}"])
    buried = (queries.DEAD_PUT, [dead], [dead[0]], [dead[1]], [1], [0], ["r"], ["{}"])

    async def record(write: Callable[..., Awaitable[Any]], *args: object) -> Any:
        async with engine.pool.acquire() as connection:
            return await write(connection, *args)

    async with engine.pool.acquire() as renewing:
        async with renewing.transaction():
            ids = [row["id"] for row in rows]
            renewed = await renewing.fetch(queries.LEASES_RENEW, "me", [done[0]] * 3, ids, lease)
            assert len(renewed) == 3
            recording = [
                asyncio.create_task(record(write_each, *delivered)),
                asyncio.create_task(record(write_each, *retrying)),
                asyncio.create_task(record(fetch_each, *buried)),
            ]
            waiting = "SELECT count(*) >= 3 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            await engine.until(lambda: engine.pool.fetchval(waiting))
        (_, _, letters) = await asyncio.gather(*recording)
    assert [row["id"] for row in letters] == [dead[1]]
    left = await engine.pool.fetch(
        "SELECT id, state, due_at FROM spine.deliveries_open WHERE id = ANY ($1)", [done[1], failed[1], dead[1]]
    )
    assert [(row["id"], row["state"]) for row in left] == [(failed[1], "retrying")]
    assert left[0]["due_at"] > await engine.pool.fetchval("SELECT now() + interval '59 minutes'")
