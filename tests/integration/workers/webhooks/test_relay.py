"""The relay: which endpoints get an event, and how it handles a wide fan-out and concurrent workers."""

import asyncio
from collections import Counter
from typing import Any
from unittest.mock import create_autospec

import pytest

from spine.kernel.settings import WorkSettings
from spine.kernel.wakeups import Wakeups
from tests.delivery_engine import Engine
from tests.receiver import Receiver
from workers.heartbeat import Heartbeat
from workers.webhooks.endpoint_queues import EndpointQueues
from workers.webhooks.relay import Relay
from workers.webhooks.relay_plan import COST_MAX, PART

MAX_HELD = 1000


async def test_event_reaches_every_endpoint_that_matches(engine: Engine, receiver: Receiver) -> None:
    """An accepted event reaches each endpoint whose pattern matches, once, and no other."""
    await engine.endpoint(receiver.url("/exact"), ["thing.happened"])
    await engine.endpoint(receiver.url("/family"), ["thing.*", "*", "thing.happened"])
    await engine.endpoint(receiver.url("/deep"), ["thing.happened.*"])
    await engine.endpoint(receiver.url("/other"), ["other.happened"])
    async with engine.running_worker():
        (event_id,) = await engine.publish("thing.happened")
        rows = await engine.until_states(delivered=2)
    assert receiver.count == Counter({"/exact": 1, "/family": 1})
    assert {call.event_id for call in receiver.calls} == {event_id}
    assert [len(row["attempts"]) for row in rows] == [1, 1]


async def test_the_patterns_that_match_a_type(engine: Engine) -> None:
    """A type matches itself, each of its prefixes with `.*`, and `*`; nothing else."""
    for type, expected in {
        "a.b.c": {"a.b.c", "a.b.*", "a.*", "*"},
        "a": {"a", "*"},
        "order.paid_late": {"order.paid_late", "order.*", "*"},
    }.items():
        patterns = await engine.pool.fetchval("SELECT spine.patterns_met($1)", type)
        assert (set(patterns), len(patterns)) == (expected, len(expected))


async def test_the_pattern_in_force_at_accept_time_counts(engine: Engine, receiver: Receiver) -> None:
    """An endpoint created after an event was accepted does not get it; one that unsubscribed after it does (promise 1)."""
    before = await engine.endpoint(receiver.url("/before"))
    await engine.publish()
    await engine.pool.execute(
        "UPDATE spine.subscriptions SET valid_to = clock_timestamp() WHERE endpoint_id = $1", before.id
    )
    await engine.endpoint(receiver.url("/after"))
    async with engine.running_worker():
        await engine.until_states(delivered=1)
    assert receiver.count == Counter({"/before": 1})


async def test_other_workspaces_events_are_not_delivered(engine: Engine, receiver: Receiver) -> None:
    """An event stays in its workspace."""
    await engine.endpoint(receiver.url("/mine"))
    neighbour = Engine(engine.url, engine.redis_url, engine.pool)
    await neighbour.create_workspace()
    await neighbour.endpoint(receiver.url("/theirs"))
    async with engine.running_worker():
        (event_id,) = await engine.publish()
        await engine.until_states(delivered=1)
        await neighbour.publish()
        await neighbour.until_states(delivered=1)
    assert [call.event_id for call in receiver.to("/mine")] == [event_id]
    assert receiver.count["/theirs"] == 1


async def test_a_wide_fan_out_is_split_into_transactions(engine: Engine, receiver: Receiver) -> None:
    """More deliveries than the maximum of one transaction are written in several, and each arrives once."""
    endpoints = 60
    events = 10 * COST_MAX // endpoints + 40
    for n in range(endpoints):
        await engine.endpoint(receiver.url(f"/{n}"))
    await engine.publish(count=events)
    async with engine.running_worker():
        await receiver.until(lambda: sum(receiver.count.values()) >= endpoints * events, 100)
        await engine.until_states(delivered=endpoints * events)
    assert set(receiver.count.values()) == {events}
    writers = await engine.pool.fetch("SELECT count(*) FROM spine.deliveries_closed GROUP BY xid")
    assert max(row["count"] for row in writers) <= COST_MAX + PART


async def test_the_excluded_endpoint_gets_no_delivery(engine: Engine, receiver: Receiver) -> None:
    """The endpoint named by the outbox row does not get the event, which reports its own dead letter."""
    excluded = await engine.endpoint(receiver.url("/excluded"))
    await engine.endpoint(receiver.url("/other"))
    await engine.publish()
    await engine.pool.execute("UPDATE spine.outbox SET not_endpoint_id = $1", excluded.id)
    async with engine.running_worker():
        await engine.until_states(delivered=1)
    assert receiver.count == Counter({"/other": 1})


async def test_an_event_without_subscribers_leaves_the_outbox(engine: Engine) -> None:
    """An event without a matching endpoint makes no delivery and leaves the outbox."""
    await engine.publish(count=3)
    async with engine.running_worker():
        await engine.until(lambda: engine.pool.fetchval("SELECT count(*) = 0 FROM spine.outbox"))
    assert await engine.deliveries() == []


async def test_deliveries_that_are_dead_at_once(engine: Engine, receiver: Receiver) -> None:
    """A delivery whose endpoint was deleted, or payload erased, before the relay reads the event is a dead letter at once."""
    gone = await engine.endpoint(receiver.url("/gone"), ["one.*"])
    await engine.endpoint(receiver.url("/there"), ["two.*"])
    await engine.publish("one.happened")
    (erased,) = await engine.publish("two.happened")
    await engine.pool.execute("UPDATE spine.webhook_endpoints SET deleted_at = now() WHERE id = $1", gone.id)
    await engine.pool.execute("UPDATE spine.events SET body = NULL WHERE id = $1", erased)
    async with engine.running_worker():
        rows = await engine.until_states(dead=2)
    assert {row["reason"] for row in rows} == {"endpoint_deleted", "payload_erased"}
    assert receiver.calls == []


class _PausedRelay(Relay):
    """A relay that pauses between reading and writing."""

    def __init__(self, engine: Engine, name: str) -> None:
        heartbeat = Heartbeat(engine.pool, name)
        heartbeat.live_workers = frozenset({name})
        wakeups = create_autospec(Wakeups, instance=True)
        self.name = name
        self.queues = EndpointQueues(heartbeat, MAX_HELD, 10**9)
        self.read = asyncio.Event()
        self.resume = asyncio.Event()
        super().__init__(engine.pool, self.queues, wakeups, WorkSettings(), heartbeat, lambda _: None)

    @property
    def loaded(self) -> list[str]:
        """The events of the deliveries in its endpoint queues."""
        return [job.event_id for queue in self.queues for job in queue.jobs]

    async def begin(self) -> None:
        """Start a batch, and return when it has read its events."""
        self.read.clear()
        self.resume.clear()
        self._batch = asyncio.create_task(self.relay_batch())
        await self.read.wait()

    async def end(self) -> bool:
        """Write the batch. Later batches do not pause."""
        self.resume.set()
        return await self._batch

    async def _write(self, *args: Any, **options: Any) -> set[int]:
        self.read.set()
        await self.resume.wait()
        return await super()._write(*args, **options)


@pytest.mark.parametrize("count", [1, 300])
async def test_two_workers_that_read_the_same_event(engine: Engine, count: int) -> None:
    """Each event is relayed once and loaded by the worker that leased it; no worker keeps a reservation."""
    await engine.endpoint("http://127.0.0.1:9/")
    first, second = _PausedRelay(engine, "first"), _PausedRelay(engine, "second")
    old = await engine.publish(count=count)
    await first.begin()
    newer = await engine.publish()
    await second.begin()
    await first.end()
    await second.end()
    while await first.relay_batch() or await second.relay_batch():
        pass
    rows = await engine.pool.fetch("SELECT event_id, leased_by FROM spine.deliveries_open")
    assert sorted(row["event_id"] for row in rows) == sorted(old + newer)
    for relay in (first, second):
        assert sorted(relay.loaded) == sorted(row["event_id"] for row in rows if row["leased_by"] == relay.name)
        assert relay.queues.capacity(claimed=False) == MAX_HELD * 3 // 4 - len(relay.loaded)
    await first.close()
    await second.close()


async def test_two_workers_write_one_dead_letter(engine: Engine) -> None:
    """Two workers that read an event whose payload is erased write one dead letter."""
    await engine.endpoint("http://127.0.0.1:9/")
    await engine.publish()
    await engine.pool.execute("UPDATE spine.events SET body = NULL")
    relays = _PausedRelay(engine, "first"), _PausedRelay(engine, "second")
    for relay in relays:
        await relay.begin()
    await asyncio.gather(*(relay.end() for relay in relays))
    assert [row["state"] for row in await engine.deliveries()] == ["dead"]
    for relay in relays:
        await relay.close()


async def test_a_lost_wide_fan_out_makes_the_next_batch_lock(engine: Engine) -> None:
    """A worker that loses a wide event to another one locks its next batch, so that no other worker repeats that work."""
    for n in range(20):
        await engine.endpoint(f"http://127.0.0.1:9/{n}")
    await engine.publish()
    first, second = _PausedRelay(engine, "first"), _PausedRelay(engine, "second")
    await first.begin()
    await second.begin()
    await first.end()
    await second.end()
    assert (len(first.loaded), len(second.loaded)) == (20, 0)
    await engine.publish()
    await second.begin()
    assert not await first.relay_batch()
    await second.end()
    assert (len(first.loaded), len(second.loaded)) == (20, 20)
    await first.close()
    await second.close()
