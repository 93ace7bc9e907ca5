"""Claims: workspaces share them fairly, rows without room are left or parked, and room follows the bytes really held."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast
from unittest.mock import Mock

from spine.kernel import ids
from spine.kernel.settings import WorkSettings
from tests.delivery_engine import Engine
from tests.receiver import Receiver
from workers.heartbeat import Heartbeat
from workers.runtime import Runtime
from workers.webhooks.claim import CLAIM_ROWS, Claimer
from workers.webhooks.dispatch import Dispatcher
from workers.webhooks.endpoint_queues import EndpointQueues
from workers.webhooks.jobs import EndpointLimits

MANY = 20_000
ENDPOINTS = 500
LARGEST = 262_144
"""Bytes of the largest permitted event."""

_INSERT_DUE = """
    INSERT INTO spine.deliveries_open (workspace_id, id, event_id, type, endpoint_id, accepted_at, due_at)
    SELECT $1, id, $3, 'thing.happened', ($4::text[])[1 + n % cardinality($4::text[])], now(),
           now() - interval '1 hour' + n * interval '1 ms'
      FROM unnest($2::text[]) WITH ORDINALITY AS u (id, n)
"""
_RETRY_NOW = "UPDATE spine.deliveries_open SET due_at = now(), state = 'retrying', failures = 1 WHERE workspace_id = $1"


async def _insert_due(engine: Engine, endpoint_ids: list[str], count: int) -> None:
    (event_id,) = await engine.publish()
    delivery_ids = [ids.mint("dlv") for _ in range(count)]
    await engine.pool.execute(_INSERT_DUE, engine.workspace_id, delivery_ids, event_id, endpoint_ids)


async def _neighbour(engine: Engine, env: str = "live") -> Engine:
    neighbour = Engine(engine.url, engine.redis_url, engine.pool)
    await neighbour.create_workspace(env)
    return neighbour


def _claimer(engine: Engine, max_held: int = 4096, max_bytes: int = 10**9) -> tuple[Claimer, EndpointQueues]:
    heartbeat = Heartbeat(engine.pool, "me")
    queues = EndpointQueues(heartbeat, max_held, max_bytes)
    return Claimer(engine.pool, queues, WorkSettings(), heartbeat, Mock(), Mock()), queues


def _holds(queues: EndpointQueues, workspace_id: str) -> int:
    return sum(job.workspace_id == workspace_id for job in queues.jobs)


async def test_a_retry_is_not_behind_the_backlog_of_others(engine: Engine) -> None:
    """A row that becomes due behind a backlog of one endpoint, and one of many endpoints, is in one of the next claims."""
    one, many, quiet = [await _neighbour(engine) for _ in range(3)]
    full = await one.endpoint("http://127.0.0.1:9/full", max_in_flight=1)
    await _insert_due(one, [full.id], MANY)
    others = [(await many.endpoint(f"http://127.0.0.1:9/{n}")).id for n in range(ENDPOINTS)]
    await _insert_due(many, others, MANY)
    claimer, queues = _claimer(engine)
    for _ in range(3):
        await claimer.claim_due()
    waiting = await quiet.endpoint("http://127.0.0.1:9/quiet")
    await _insert_due(quiet, [waiting.id], 1)
    await engine.pool.execute(_RETRY_NOW, quiet.workspace_id)
    claims = 0
    while not _holds(queues, quiet.workspace_id):
        assert await claimer.claim_due()
        claims += 1
    await claimer.close()
    assert claims <= 2


async def test_a_new_retry_is_not_behind_the_backlog_of_its_workspace(engine: Engine) -> None:
    """In a workspace, claims take from both ends of what is due: a row that has just become due, and the longest due."""
    mine = await _neighbour(engine)
    full = await mine.endpoint("http://127.0.0.1:9/full", max_in_flight=1)
    await _insert_due(mine, [full.id], MANY)
    claimer, queues = _claimer(engine)
    await claimer.claim_due()
    fresh = await mine.endpoint("http://127.0.0.1:9/fresh")
    await _insert_due(mine, [fresh.id], 1)
    await engine.pool.execute(_RETRY_NOW + " AND endpoint_id = $2", mine.workspace_id, fresh.id)
    oldest = await engine.pool.fetchval("SELECT min(due_at) FROM spine.deliveries_open WHERE leased_by IS NULL")
    await claimer.claim_due()
    await claimer.close()
    assert fresh.id in {job.endpoint_id for job in queues.jobs}
    assert await engine.pool.fetchval("SELECT min(due_at) FROM spine.deliveries_open WHERE leased_by IS NULL") > oldest


async def test_test_workspaces_do_not_overtake_live_ones(engine: Engine) -> None:
    """Beside a backlog of many test workspaces, claims lease what is due of a live one first, and then of them too."""
    live = await _neighbour(engine)
    endpoint = await live.endpoint("http://127.0.0.1:9/live")
    tests = [await _neighbour(engine, "test") for _ in range(5)]
    for test in tests:
        await _insert_due(test, [(await test.endpoint("http://127.0.0.1:9/test")).id], 200)
    await _insert_due(live, [endpoint.id], 10)
    await engine.pool.execute(_RETRY_NOW, live.workspace_id)
    claimer, queues = _claimer(engine, max_held=64)
    for _ in range(4):
        assert await claimer.claim_due()
    assert _holds(queues, live.workspace_id) == 10
    assert 5 <= sum(_holds(queues, test.workspace_id) for test in tests) < 40
    await claimer.close()


async def test_what_has_no_room_is_not_looked_at_again(engine: Engine) -> None:
    """A workspace that is full is passed over. Its rows stay due, unread, and are claimed when some of its others have ended."""
    busy = await _neighbour(engine)
    endpoints = [(await busy.endpoint(f"http://127.0.0.1:9/{n}")).id for n in range(20)]
    await _insert_due(busy, endpoints, 1000)
    claimer, queues = _claimer(engine, max_held=100)
    for _ in range(10):
        assert await claimer.claim_due()
    assert queues.held == 50
    assert queues.full_workspaces(claimed=True) == [busy.workspace_id]
    assert claimer.pause_s > 0
    due = "SELECT count(*) FROM spine.deliveries_open WHERE leased_by IS NULL AND due_at <= now()"
    assert await engine.pool.fetchval(due) == 950
    for job in list(queues.jobs)[:20]:
        queues.pop_oldest(queues.queue(_limits(queues, job)))
        queues.release(job)
    await claimer.claim_due()
    await claimer.close()
    assert 40 < queues.held <= 50


def _limits(queues: EndpointQueues, job: Any) -> Any:
    queue = queues.find((job.workspace_id, job.endpoint_id))
    assert queue is not None
    return queue.limits


async def test_claims_cost_the_same_with_many_idle_endpoints(engine: Engine) -> None:
    """What a claim sends to Postgres does not grow with the endpoint queues, idle or parked; it returns what is due."""
    mine = await _neighbour(engine)
    busy = await mine.endpoint("http://127.0.0.1:9/busy")
    claimer, queues = _claimer(engine)
    connection = _RecordingConnection(engine)
    claimer._db = cast("Any", connection)
    sent = []
    for idle in (0, 2000):
        for n in range(idle):
            queue = queues.queue(EndpointLimits(mine.workspace_id, f"whe_{n}", 1, 20, None, live=True))
            queue.parked = n % 2 == 0
        await _insert_due(mine, [busy.id], 5)
        connection.sizes.clear()
        await claimer.claim_due()
        sent.append(list(connection.sizes))
    assert sent[0] == sent[1] != []
    assert queues.held == 10


class _RecordingConnection:
    """Records how many values each statement is sent with."""

    def __init__(self, engine: Engine) -> None:
        self._pool = engine.pool
        self.sizes: list[int] = []

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        yield self

    async def fetch(self, query: str, *args: Any) -> Any:
        self.sizes.append(sum(len(arg) if isinstance(arg, list) else 1 for arg in args))
        return await self._pool.fetch(query, *args)


async def test_rows_of_a_full_queue_are_parked_in_small_claims(engine: Engine) -> None:
    """A claim looks at 128 rows. Those of a full endpoint queue are parked, so that the following claims reach others."""
    full = await engine.endpoint("http://127.0.0.1:9/full", max_in_flight=1)
    await _insert_due(engine, [full.id], 1000)
    claimer, queues = _claimer(engine)
    await claimer.claim_due()
    states = await engine.pool.fetchrow(
        "SELECT count(*) FILTER (WHERE due_at = 'infinity') AS parked, count(leased_by) AS leased FROM spine.deliveries_open"
    )
    await claimer.close()
    assert (states["leased"], states["parked"]) == (2, CLAIM_ROWS - 2)
    assert queues.held == 2


async def test_two_workers_claim_each_row_once(engine: Engine) -> None:
    """Workers that claim the same backlog at once lease each row once, and keep no place for rows that the other has."""
    mine = await _neighbour(engine)
    endpoints = [(await mine.endpoint(f"http://127.0.0.1:9/{n}", max_in_flight=100)).id for n in range(10)]
    await _insert_due(mine, endpoints, 1000)
    claimers = []
    for name in ("one", "two"):
        heartbeat = Heartbeat(engine.pool, name)
        queues = EndpointQueues(heartbeat, 4096, 10**9)
        claimers.append((Claimer(engine.pool, queues, WorkSettings(), heartbeat, Mock(), Mock()), queues, name))
    for _ in range(5):
        await asyncio.gather(*(claimer.claim_due() for claimer, _, _ in claimers))
    rows = await engine.pool.fetch("SELECT id, leased_by FROM spine.deliveries_open WHERE leased_by IS NOT NULL")
    for claimer, queues, name in claimers:
        await claimer.close()
        assert sorted(job.id for job in queues.jobs) == sorted(row["id"] for row in rows if row["leased_by"] == name)
        assert queues.capacity(claimed=True) == 3072 - queues.held
        assert queues.bodies.free == 10**9 - queues.bodies.bytes
    assert len(rows) == len({row["id"] for row in rows})


async def test_largest_bodies_stay_within_the_bytes(engine: Engine) -> None:
    """Due rows with the largest bodies are leased as far as their bytes have room, and the others stay due."""
    mine = await _neighbour(engine)
    endpoint = await mine.endpoint("http://127.0.0.1:9/", max_in_flight=300)
    events = await mine.publish(count=450, data="x" * (LARGEST - 100))
    await engine.pool.execute("DELETE FROM spine.outbox")
    for event_id in events:
        await engine.pool.execute(_INSERT_DUE, mine.workspace_id, [ids.mint("dlv")], event_id, [endpoint.id])
    claimer, queues = _claimer(engine, max_bytes=16 * 1024 * 1024)
    seen = []
    for n in range(60):
        await claimer.claim_due()
        seen.append(queues.bodies.bytes)
        if n % 4 == 3:
            for job in list(queues.jobs):
                queues.pop_oldest(queues.queue(_limits(queues, job)))
                queues.release(job)
    await claimer.close()
    assert max(seen) <= 16 * 1024 * 1024
    assert await engine.pool.fetchval("SELECT count(leased_by) FROM spine.deliveries_open") > 64


async def test_an_empty_worker_claims_one_body_of_any_size(engine: Engine) -> None:
    """A body larger than all bytes of the worker is claimed when the worker is empty, one at a time."""
    mine = await _neighbour(engine)
    endpoint = await mine.endpoint("http://127.0.0.1:9/")
    for event_id in await mine.publish(count=3, data="x" * (LARGEST - 100)):
        await engine.pool.execute(_INSERT_DUE, mine.workspace_id, [ids.mint("dlv")], event_id, [endpoint.id])
    claimer, queues = _claimer(engine, max_bytes=1000)
    claimed = []
    for _ in range(3):
        for _ in range(3):
            await claimer.claim_due()
        (job,) = queues.jobs
        claimed.append(job.id)
        queues.pop_oldest(queues.queue(_limits(queues, job)))
        queues.release(job)
    await claimer.close()
    assert len(set(claimed)) == 3


async def test_largest_events_do_not_stop_delivery(engine: Engine, receiver: Receiver) -> None:
    """After 450 events of the largest permitted size, those and small ones arrive. The bytes held stay within the bound."""
    live = await _neighbour(engine)
    await live.endpoint(receiver.url("/large"), ["large.*"])
    await live.endpoint(receiver.url("/small"), ["small.*"])
    bound = 16 * 1024 * 1024
    async with engine.running_worker(max_held_bytes=bound) as runtime:
        bodies = (await live.until(lambda: _dispatcher(runtime))).queues.bodies
        add, held = bodies.add, [0]

        def recorded(*args: Any) -> None:
            add(*args)
            held.append(bodies.bytes)

        bodies.add = recorded
        await live.publish("large.happened", count=450, data="x" * (LARGEST - 100))
        await receiver.until_calls("/large", 450, 100)
        await live.publish("small.happened", count=50)
        await receiver.until_calls("/small", 50)
        await live.until_states(delivered=500)

        async def is_free() -> bool:
            return bool(bodies.bytes == 0 and bodies.free == bound)

        await live.until(is_free)
    assert LARGEST < max(held) <= bound + LARGEST


async def _dispatcher(runtime: Runtime) -> Dispatcher | None:
    return next((pipeline for pipeline in runtime._pipelines if isinstance(pipeline, Dispatcher)), None)
