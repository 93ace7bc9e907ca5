"""The relay with a backlog: workspaces take turns, live ones go first, and wide events are written in parts."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import create_autospec

import pytest

from spine.kernel import ids
from spine.kernel.settings import WorkSettings
from spine.kernel.wakeups import Wakeups
from tests.delivery_engine import Engine
from workers.heartbeat import Heartbeat
from workers.webhooks.endpoint_queues import EndpointQueues
from workers.webhooks.relay import Relay
from workers.webhooks.relay_plan import COST_MAX, PART

NOWHERE = "http://127.0.0.1:9/"


@asynccontextmanager
async def relaying(engine: Engine, name: str = "me", max_held: int = 10**6) -> AsyncIterator[Relay]:
    """A relay of a worker that sends nothing and has much capacity, so that only its batches move events."""
    heartbeat = Heartbeat(engine.pool, name)
    heartbeat.live_workers = frozenset({name})
    queues = EndpointQueues(heartbeat, max_held, 10**9)
    relay = Relay(
        engine.pool, queues, create_autospec(Wakeups, instance=True), WorkSettings(), heartbeat, lambda _: None
    )
    try:
        yield relay
    finally:
        await relay.close()


async def neighbour(engine: Engine, env: str = "test") -> Engine:
    """Another workspace of the same database, with one endpoint."""
    other = Engine(engine.url, engine.redis_url, engine.pool)
    await other.create_workspace(env)
    await other.endpoint(NOWHERE)
    return other


async def wide(engine: Engine, endpoints: int, pattern: str = "*", status: str = "enabled") -> list[str]:
    """Subscribe many endpoints to a pattern. Returns their ids."""
    made = sorted(ids.mint("whe") for _ in range(endpoints))
    async with engine.pool.acquire() as connection, connection.transaction():
        await connection.execute(
            "INSERT INTO spine.webhook_endpoints (workspace_id, id, url, events, max_in_flight, status) "
            "SELECT $1, id, $3, '{*}', 20, $4 FROM unnest($2::text[]) id",
            engine.workspace_id,
            made,
            NOWHERE,
            status,
        )
        await connection.execute(
            "INSERT INTO spine.subscriptions (workspace_id, endpoint_id, pattern) SELECT $1, id, $3 FROM unnest($2::text[]) id",
            engine.workspace_id,
            made,
            pattern,
        )
    return made


async def written(engine: Engine) -> int:
    """The number of deliveries of this workspace."""
    count: int = await engine.pool.fetchval(
        "SELECT count(*) FROM spine.deliveries_open WHERE workspace_id = $1", engine.workspace_id
    )
    return count


async def waiting(engine: Engine) -> int:
    """The number of this workspace's events in the outbox."""
    count: int = await engine.pool.fetchval(
        "SELECT count(*) FROM spine.outbox WHERE workspace_id = $1", engine.workspace_id
    )
    return count


async def test_an_event_does_not_wait_behind_another_workspaces_backlog(engine: Engine) -> None:
    """With 20,000 events of one workspace waiting, and more arriving, each event of another one is in the next batch."""
    await engine.endpoint(NOWHERE)
    quiet = await neighbour(engine)
    await engine.publish(count=20_000)
    async with relaying(engine) as relay:
        for _ in range(3):
            assert await relay.relay_batch()
        for n in range(5):
            await quiet.publish()
            await engine.publish(count=600)
            assert await relay.relay_batch()
            assert (await waiting(quiet), await written(quiet)) == (0, n + 1)
    assert await waiting(engine) > 15_000


async def test_an_event_passes_beside_the_batch_of_a_backlog(engine: Engine) -> None:
    """While a batch has another workspace's events locked, an event is relayed beside it; the backlog waits for its batches."""
    await engine.endpoint(NOWHERE)
    quiet = await neighbour(engine)
    await engine.publish(count=5_000)
    async with relaying(engine) as relay, engine.pool.acquire() as batch:
        assert not await relay.relay_batch() or relay.has_backlog
        assert await relay.relay_batch()
        async with batch.transaction():
            await batch.execute("SELECT FROM spine.outbox WHERE workspace_id = $1 FOR UPDATE", engine.workspace_id)
            busy = await waiting(engine)
            await quiet.publish(count=3)
            assert await relay.relay_beside()
            assert (await waiting(quiet), await written(quiet)) == (0, 3)
        assert not await relay.relay_beside()
        assert await waiting(engine) == busy > 0


async def test_nothing_is_asked_while_all_workspaces_are_full(engine: Engine) -> None:
    """After the batch that fills a workspace's share, the relay knows that it waits for room, until the workspace has some."""
    await wide(engine, 1)
    await engine.publish(count=2_000)
    async with relaying(engine, max_held=64) as relay:
        queues = relay._queues

        def end_all() -> None:
            for queue in queues:
                for job in queues.clear(queue):
                    queues.release(job)

        assert await relay.relay_batch()
        end_all()
        while not relay.waits_for_room:
            held = queues.held
            assert await relay.relay_batch()
            assert held < queues.held < 64
        end_all()
        assert not relay.waits_for_room


async def test_no_workspace_is_passed_over(engine: Engine) -> None:
    """More workspaces than a batch has rows or looks at all have their turns, beside one with a long backlog."""
    await engine.endpoint(NOWHERE)
    await engine.publish(count=3000)
    others = [Engine(engine.url, engine.redis_url, engine.pool) for _ in range(600)]
    await engine.pool.execute(
        "WITH ws AS (INSERT INTO spine.organisations (id, name, email) SELECT 'org_' || id, 'T', 'a@example.com' "
        "FROM unnest($1::text[]) id) INSERT INTO spine.workspaces (workspace_id, organisation_id, env) "
        "SELECT id, 'org_' || id, 'live' FROM unnest($1::text[]) id",
        [other.workspace_id for other in others],
    )
    for other in others:
        await other.publish()
    async with relaying(engine) as relay:
        batches = 0
        while await engine.pool.fetchval("SELECT count(DISTINCT workspace_id) > 1 FROM spine.outbox"):
            assert await relay.relay_batch()
            batches += 1
    assert batches <= 600 // 60 + 5
    assert await waiting(engine) > 0


async def test_workspaces_share_by_what_their_events_cost(engine: Engine) -> None:
    """Of two workspaces with a backlog, the one whose events go to 100 endpoints each gets fewer of them relayed."""
    await wide(engine, 100)
    narrow = await neighbour(engine)
    await engine.publish(count=1000)
    await narrow.publish(count=20_000)
    async with relaying(engine) as relay:
        assert await relay.relay_batch()  # of the oldest events, which are all of the first workspace
        first = await written(engine)
        for _ in range(20):
            assert await relay.relay_batch()
    to_many, to_one = await written(engine) - first, await written(narrow)
    # An event costs as much as a delivery. Each batch may end with an event of either.
    assert abs((to_many + to_many // 100) - 2 * to_one) <= 20 * 2 * 101


async def test_test_events_do_not_go_before_live_ones(engine: Engine) -> None:
    """Beside a backlog of a test workspace live events go first; test events go on, with at most a ninth of the whole."""
    await engine.endpoint(NOWHERE)
    live = await neighbour(engine, "live")
    await engine.publish(count=5000)
    await live.publish(count=5000)
    async with relaying(engine) as relay:
        before: tuple[int, int] = (0, 0)
        assert await relay.relay_batch()  # the first one reads the oldest events, whose they are
        start = await waiting(engine), await waiting(live)
        while await waiting(live) > 1000:
            assert await relay.relay_batch()
            relayed = start[0] - await waiting(engine), start[1] - await waiting(live)
            assert relayed[0] >= before[0]
            assert relayed[0] * 8 <= relayed[1] + 64
            before = relayed
        assert before[0] > 0
        while await relay.relay_batch():
            pass
    assert (await waiting(engine), await waiting(live)) == (0, 0)


async def test_a_wide_event_does_not_hold_others(engine: Engine) -> None:
    """While one event goes to 50,000 endpoints, each event of another workspace waits for one bounded part of it."""
    await wide(engine, 50_000)
    quiet = await neighbour(engine)
    await engine.publish()
    async with relaying(engine) as relay:
        for _ in range(2):
            assert await relay.relay_batch()
        for n in range(3):
            before = await written(engine)
            assert before > 0
            await quiet.publish()
            assert await relay.relay_batch()
            assert (await waiting(quiet), await written(quiet)) == (0, n + 1)
            assert await written(engine) - before <= PART
    assert await waiting(engine) == 1


async def test_parts_hold_what_was_true_at_accept_time(engine: Engine) -> None:
    """A wide event reaches each endpoint that was subscribed when it was accepted, once, whatever changes between its parts.

    So it is with endpoints that subscribed by several patterns, or several times, and with a relay that stops in the
    middle of a part, whose work another one takes over.
    """
    subscribed = await wide(engine, 2 * PART + 300)
    await engine.pool.execute(
        "INSERT INTO spine.subscriptions (workspace_id, endpoint_id, pattern) "
        "SELECT workspace_id, endpoint_id, 'thing.*' FROM spine.subscriptions WHERE endpoint_id > $1",
        subscribed[500],
    )
    await engine.pool.execute(
        "INSERT INTO spine.subscriptions (workspace_id, endpoint_id, pattern, valid_from, valid_to) "
        "SELECT workspace_id, endpoint_id, '*', now() - n * interval '1 h', now() - interval '1 min' "
        "FROM spine.subscriptions, generate_series(1, 3) n WHERE pattern = '*'"
    )
    await engine.publish(count=2)
    await wide(engine, 700)  # later than the events
    async with relaying(engine, "first") as first:
        while not await written(engine):
            assert await first.relay_batch()
        async with engine.pool.acquire() as holding, holding.transaction():
            await holding.execute("LOCK TABLE spine.deliveries_open IN SHARE MODE")
            batch = asyncio.create_task(first.relay_batch())
            stuck = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            await engine.until(lambda: engine.pool.fetchval(stuck))
            batch.cancel()
            await asyncio.gather(batch, return_exceptions=True)
    await engine.pool.execute("UPDATE spine.subscriptions SET valid_to = clock_timestamp() WHERE valid_to = 'infinity'")
    async with relaying(engine, "second") as second:
        while await second.relay_batch():
            pass
    rows = await engine.pool.fetch("SELECT event_id, endpoint_id FROM spine.deliveries_open")
    per_event = Counter(row["event_id"] for row in rows)
    assert list(per_event.values()) == [len(subscribed)] * 2
    assert len({(row["event_id"], row["endpoint_id"]) for row in rows}) == len(rows)
    assert {row["endpoint_id"] for row in rows} == set(subscribed)


async def test_a_killed_worker_leaves_each_endpoint_one_delivery(engine: Engine) -> None:
    """After kill -9 in the middle of a wide event another worker writes the rest of its deliveries, and none again."""
    subscribed = await wide(engine, 50_000, status="disabled")  # their deliveries are held, so none is sent meanwhile
    await engine.publish()
    first = await engine.worker()
    begun = "SELECT count(*) > 0 FROM spine.outbox WHERE after_endpoint_id IS NOT NULL"
    await engine.until(lambda: engine.pool.fetchval(begun))
    await engine.stop(first, signal.SIGKILL)
    assert PART <= await written(engine) < len(subscribed)
    await engine.worker()
    await engine.until(lambda: engine.pool.fetchval("SELECT count(*) = 0 FROM spine.outbox"), 120)
    rows = await engine.pool.fetch("SELECT endpoint_id FROM spine.deliveries_open ORDER BY endpoint_id")
    assert [row["endpoint_id"] for row in rows] == subscribed


async def test_workers_that_share_a_backlog(engine: Engine) -> None:
    """Several workers relay a mixed backlog at the same time: each delivery is written once, in bounded transactions."""
    await wide(engine, PART + 400, "wide.*")
    await engine.endpoint(NOWHERE, ["thing.*"])
    other = await neighbour(engine)
    await engine.publish("wide.one", count=7)
    await engine.publish("thing.one", count=900)
    await other.publish(count=900)

    async def work(name: str) -> None:
        async with relaying(engine, name) as relay:
            while await engine.pool.fetchval("SELECT EXISTS (SELECT FROM spine.outbox)"):
                await relay.relay_batch()

    await asyncio.gather(*(work(f"worker {n}") for n in range(3)))
    assert await written(engine) == 7 * (PART + 400) + 900
    assert await written(other) == 900
    repeated = (
        "SELECT count(*) FROM (SELECT FROM spine.deliveries_open GROUP BY event_id, endpoint_id HAVING count(*) > 1) x"
    )
    assert await engine.pool.fetchval(repeated) == 0
    writers = await engine.pool.fetch("SELECT count(*) FROM spine.deliveries_open GROUP BY xid")
    assert max(row["count"] for row in writers) <= COST_MAX + PART


@pytest.mark.parametrize("size", [262_000, 10])
async def test_a_batch_reads_a_bounded_number_of_bytes(engine: Engine, size: int) -> None:
    """Large payloads make small batches. Their workspace pays for them: another one's events go before most of them."""
    await engine.endpoint(NOWHERE)
    small = await neighbour(engine)
    await engine.publish(count=120, data="x" * size)
    await small.publish(count=120)
    bodies: list[int] = []
    async with relaying(engine) as relay:
        load: Any = relay._load_leased

        def load_leased(deliveries: Any, lease_ends_s: float) -> None:
            bodies.append(sum(len(one.event["body"]) for one in deliveries))
            load(deliveries, lease_ends_s)

        relay._load_leased = load_leased  # type: ignore[method-assign]
        while await relay.relay_batch():
            if size > 1000 and len(bodies) > 1 and await waiting(small):
                assert await waiting(engine) >= await waiting(small)
    assert (await waiting(engine), await waiting(small)) == (0, 0)
    assert max(bodies[1:]) <= 8 * 1024 * 1024 + 300_000
