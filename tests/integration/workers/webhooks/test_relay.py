"""The relay: who gets an event, and what a backlog or a wide fan-out does to it."""

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
from workers.webhooks.relay import MAX_DELIVERIES, Relay

ROOM = 1000


async def test_event_reaches_every_endpoint_that_matches(engine: Engine, receiver: Receiver) -> None:
    """An accepted event reaches each endpoint whose pattern matches, once, and no other."""
    await engine.endpoint(receiver.url("/exact"), ["thing.happened"])
    await engine.endpoint(receiver.url("/family"), ["thing.*", "*", "thing.happened"])
    await engine.endpoint(receiver.url("/deep"), ["thing.happened.*"])
    await engine.endpoint(receiver.url("/other"), ["other.happened"])
    async with engine.at_work():
        (event_id,) = await engine.publish("thing.happened")
        rows = await engine.until_states(delivered=2)
    assert receiver.count == Counter({"/exact": 1, "/family": 1})
    assert {call.event_id for call in receiver.calls} == {event_id}
    assert [len(row["attempts"]) for row in rows] == [1, 1]


async def test_a_type_meets_itself_its_families_and_all(engine: Engine) -> None:
    """The patterns that a type meets: itself, each of its families with `.*`, and `*`; no other's words count."""
    for type, met in {
        "a.b.c": {"a.b.c", "a.b.*", "a.*", "*"},
        "a": {"a", "*"},
        "order.paid_late": {"order.paid_late", "order.*", "*"},
    }.items():
        patterns = await engine.pool.fetchval("SELECT spine.patterns_met($1)", type)
        assert (set(patterns), len(patterns)) == (met, len(met))


async def test_the_pattern_in_force_at_accept_time_counts(engine: Engine, receiver: Receiver) -> None:
    """An endpoint made after an event was accepted does not get it; one that stopped listening after it still does (promise 1)."""
    before = await engine.endpoint(receiver.url("/before"))
    await engine.publish()
    await engine.pool.execute(
        "UPDATE spine.subscriptions SET valid_to = clock_timestamp() WHERE endpoint_id = $1", before.id
    )
    await engine.endpoint(receiver.url("/after"))
    async with engine.at_work():
        await engine.until_states(delivered=1)
    assert receiver.count == Counter({"/before": 1})


async def test_other_workspaces_events_are_not_delivered(engine: Engine, receiver: Receiver) -> None:
    """An event stays in its workspace."""
    await engine.endpoint(receiver.url("/mine"))
    neighbour = Engine(engine.url, engine.redis_url, engine.pool)
    await neighbour.found()
    await neighbour.endpoint(receiver.url("/theirs"))
    async with engine.at_work():
        (event_id,) = await engine.publish()
        await engine.until_states(delivered=1)
        await neighbour.publish()
        await neighbour.until_states(delivered=1)
    assert [call.event_id for call in receiver.to("/mine")] == [event_id]
    assert receiver.count["/theirs"] == 1


async def test_a_wide_fan_out_is_cut_into_transactions(engine: Engine, receiver: Receiver) -> None:
    """More deliveries than one transaction holds are written in several, and all of them arrive once."""
    endpoints = 60
    events = MAX_DELIVERIES // endpoints + 40
    for n in range(endpoints):
        await engine.endpoint(receiver.url(f"/{n}"))
    await engine.publish(count=events)
    async with engine.at_work():
        await receiver.until(lambda: sum(receiver.count.values()) >= endpoints * events, 100)
        await engine.until_states(delivered=endpoints * events)
    assert set(receiver.count.values()) == {events}
    writers = await engine.pool.fetch("SELECT count(*) FROM spine.deliveries_closed GROUP BY xid")
    assert max(row["count"] for row in writers) <= MAX_DELIVERIES


async def test_an_endpoint_that_must_not_know_is_left_out(engine: Engine, receiver: Receiver) -> None:
    """The outbox row names an endpoint that does not get the event: the one whose own dead letter it tells of."""
    left_out = await engine.endpoint(receiver.url("/left-out"))
    await engine.endpoint(receiver.url("/told"))
    await engine.publish()
    await engine.pool.execute("UPDATE spine.outbox SET not_endpoint_id = $1", left_out.id)
    async with engine.at_work():
        await engine.until_states(delivered=1)
    assert receiver.count == Counter({"/told": 1})


async def test_an_event_that_nobody_hears_leaves_the_outbox(engine: Engine) -> None:
    """Without a matching endpoint an event makes no delivery, and waits no longer."""
    await engine.publish(count=3)
    async with engine.at_work():
        await engine.until(lambda: engine.pool.fetchval("SELECT count(*) = 0 FROM spine.outbox"))
    assert await engine.deliveries() == []


async def test_born_dead(engine: Engine, receiver: Receiver) -> None:
    """A delivery whose endpoint was deleted, or whose payload was erased, before the relay came is a dead letter at once."""
    gone = await engine.endpoint(receiver.url("/gone"), ["one.*"])
    await engine.endpoint(receiver.url("/there"), ["two.*"])
    await engine.publish("one.happened")
    (erased,) = await engine.publish("two.happened")
    await engine.pool.execute("UPDATE spine.webhook_endpoints SET deleted_at = now() WHERE id = $1", gone.id)
    await engine.pool.execute("UPDATE spine.events SET body = NULL WHERE id = $1", erased)
    async with engine.at_work():
        rows = await engine.until_states(dead=2)
    assert {row["reason"] for row in rows} == {"endpoint_deleted", "payload_erased"}
    assert receiver.calls == []


class _Paused(Relay):
    """A relay that stops between reading and writing."""

    def __init__(self, engine: Engine, name: str) -> None:
        heartbeat = Heartbeat(engine.pool, name)
        heartbeat.live_workers = frozenset({name})
        wakeups = create_autospec(Wakeups, instance=True)
        self.name = name
        self.queues = EndpointQueues(heartbeat, ROOM, 10**9)
        self.read = asyncio.Event()
        self.go_on = asyncio.Event()
        super().__init__(engine.pool, self.queues, wakeups, WorkSettings(), name, lambda _: None)

    @property
    def loaded(self) -> list[str]:
        """The events whose deliveries it would send."""
        return [job.event_id for queue in self.queues for job in queue.jobs]

    async def begin(self) -> None:
        """Look, and stop once that has read."""
        self.read.clear()
        self.go_on.clear()
        self._look = asyncio.create_task(self.relay_batch())
        await self.read.wait()

    async def end(self) -> bool:
        """Write what was read; later looks do not stop."""
        self.go_on.set()
        return await self._look

    async def _write(self, *args: Any) -> set[int]:
        self.read.set()
        await self.go_on.wait()
        return await super()._write(*args)


@pytest.mark.parametrize("count", [1, 300])
async def test_two_that_read_the_same_event(engine: Engine, count: int) -> None:
    """Each event is relayed once, and loaded where it was leased, though another worker read it too; nothing stays promised."""
    await engine.endpoint("http://127.0.0.1:9/")
    first, second = _Paused(engine, "first"), _Paused(engine, "second")
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
        assert relay.queues.room(claimed=False) == ROOM * 3 // 4 - len(relay.loaded)
    await first.close()
    await second.close()


async def test_what_was_born_dead_is_so_once(engine: Engine) -> None:
    """Two workers that read an event whose payload is erased make one dead letter of it."""
    await engine.endpoint("http://127.0.0.1:9/")
    await engine.publish()
    await engine.pool.execute("UPDATE spine.events SET body = NULL")
    relays = _Paused(engine, "first"), _Paused(engine, "second")
    for relay in relays:
        await relay.begin()
    await asyncio.gather(*(relay.end() for relay in relays))
    assert [row["state"] for row in await engine.deliveries()] == ["dead"]
    for relay in relays:
        await relay.close()


async def test_a_wide_fan_out_is_made_for_nothing_once(engine: Engine) -> None:
    """A worker that found a wide event gone when it wrote locks at its next look, so that the others leave that to it."""
    for n in range(20):
        await engine.endpoint(f"http://127.0.0.1:9/{n}")
    await engine.publish()
    first, second = _Paused(engine, "first"), _Paused(engine, "second")
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
