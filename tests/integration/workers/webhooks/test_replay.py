"""Replays, as the workers run them (promise 5)."""

from typing import Any

from spine.kernel import ids
from tests.delivery_engine import Engine
from tests.receiver import Receiver, ScriptedResponse


async def _create_replay(
    engine: Engine, kind: str, filter: dict[str, Any], total: int, rate_per_s: float | None = None
) -> str:
    id = ids.mint("rpl")
    await engine.pool.execute(
        "INSERT INTO spine.replays (workspace_id, id, kind, filter, total, upto, due_at, rate_per_s) "
        "VALUES ($1, $2, $3, $4, $5, '~', now(), $6)",
        engine.workspace_id,
        id,
        kind,
        filter,
        total,
        rate_per_s,
    )
    return id


async def _until_done(engine: Engine, id: str) -> Any:
    await engine.until(lambda: engine.pool.fetchval("SELECT status = 'done' FROM spine.replays WHERE id = $1", id))
    return await engine.pool.fetchrow("SELECT * FROM spine.replays WHERE id = $1", id)


async def _create_dead_letters(
    engine: Engine, receiver: Receiver, path: str, events: int, type: str = "thing.happened"
) -> list[str]:
    """Publish events and let every attempt fail until the deliveries are dead."""
    receiver.always(path, ScriptedResponse(500))
    event_ids = await engine.publish(type, events)

    async def dead() -> bool:
        await engine.advance(7200)
        rows = await engine.deliveries(state="dead")
        return set(event_ids) <= {row["event_id"] for row in rows}

    await engine.until(dead)
    return event_ids


async def test_dead_letters_come_back_with_the_same_id_and_bytes(engine: Engine, receiver: Receiver) -> None:
    """A replay sends the original id and bytes in a new series of attempts, counts them, and emits an event when it is done."""
    await engine.endpoint(receiver.url("/hook"), ["thing.*"])
    await engine.endpoint(receiver.url("/system"), ["replay.completed"])
    async with engine.running_worker():
        event_ids = await _create_dead_letters(engine, receiver, "/hook", 3)
        first = {call.event_id: call.body for call in receiver.to("/hook")}
        receiver.always("/hook", ScriptedResponse(200))
        calls = receiver.count["/hook"]
        replay = await _until_done(engine, await _create_replay(engine, "closed", {"status": "dead"}, 3))
        (completed,) = await receiver.until_calls("/system", 1)
    again = receiver.to("/hook")[calls:]
    assert sorted(call.event_id for call in again) == sorted(event_ids)
    assert all(call.body == first[call.event_id] for call in again)
    assert (replay["started"], replay["done"], replay["failed"], replay["due_at"]) == (3, 3, 0, None)
    for row in await engine.deliveries(type="thing.happened"):
        assert (row["state"], row["series"], row["replay_id"]) == ("delivered", 2, replay["id"])
        assert [(attempt["series"], attempt["number"]) for attempt in row["attempts"]] == [
            *((1, n) for n in range(1, 9)),
            (2, 1),
        ]
    assert replay["id"].encode() in completed.body


async def test_the_filter_selects_the_replayed_deliveries(engine: Engine, receiver: Receiver) -> None:
    """A filter by endpoint, type and time selects those deliveries and no others."""
    one = await engine.endpoint(receiver.url("/one"), ["a.*", "b.*"])
    await engine.endpoint(receiver.url("/two"), ["a.*"])
    async with engine.running_worker():
        await engine.publish("a.x", 2)
        await engine.until_states(delivered=4)
        since = await engine.pool.fetchval("SELECT clock_timestamp()")
        (wanted,) = await engine.publish("a.y")
        await engine.publish("b.x")
        await engine.until_states(delivered=7)
        filter = {"status": "delivered", "endpoint_id": one.id, "types": ["a.*"], "since": since.isoformat()}
        replay = await _until_done(engine, await _create_replay(engine, "closed", filter, 1))
    assert replay["done"] == 1
    assert [call.event_id for call in receiver.to("/one")].count(wanted) == 2
    assert receiver.count["/one"] == 5
    assert receiver.count["/two"] == 3


async def test_deliveries_that_die_again_count_as_failed(engine: Engine, receiver: Receiver) -> None:
    """A replayed delivery that dies again, or whose payload was erased, counts as failed; the replay still ends."""
    await engine.endpoint(receiver.url("/hook"), ["thing.*"])
    async with engine.running_worker():
        event_ids = await _create_dead_letters(engine, receiver, "/hook", 2)
        await engine.pool.execute("UPDATE spine.events SET body = NULL WHERE id = $1", event_ids[0])
        id = await _create_replay(engine, "closed", {"status": "dead"}, 2)

        async def ended() -> Any:
            await engine.advance(7200)
            return await engine.pool.fetchval("SELECT status = 'done' FROM spine.replays WHERE id = $1", id)

        await engine.until(ended)
        replay = await engine.pool.fetchrow("SELECT * FROM spine.replays WHERE id = $1", id)
        rows = await engine.deliveries(state="dead")
    assert (replay["done"], replay["failed"]) == (0, 2)
    assert {row["reason"] for row in rows} == {"attempts_exhausted", "payload_erased"}


async def test_a_paused_replay_resumes_at_its_position(engine: Engine, receiver: Receiver) -> None:
    """A replay can be paused between steps and continues at its position; its rate limits each step."""
    await engine.endpoint(receiver.url("/hook"), ["thing.*"])
    async with engine.running_worker():
        await engine.publish(count=12)
        await engine.until_states(delivered=12)
        id = await _create_replay(engine, "closed", {"status": "delivered"}, 12, rate_per_s=4.0)
        await engine.until(lambda: engine.pool.fetchval("SELECT started > 0 FROM spine.replays WHERE id = $1", id))
        await engine.pool.execute("UPDATE spine.replays SET status = 'paused', due_at = NULL WHERE id = $1", id)
        started = await engine.pool.fetchval("SELECT started FROM spine.replays WHERE id = $1", id)
        await engine.until_states(delivered=12)
        assert 0 < started < 12
        assert receiver.count["/hook"] == 12 + started
        await engine.pool.execute(
            "UPDATE spine.replays SET status = 'running', due_at = now(), rate_per_s = NULL WHERE id = $1", id
        )
        replay = await _until_done(engine, id)
    assert replay["done"] == 12
    assert receiver.count["/hook"] == 24


async def test_missing_events_are_delivered_once(engine: Engine, receiver: Receiver) -> None:
    """`replay_missing` delivers the events that the endpoint never got, and only those; a second one finds none."""
    async with engine.running_worker():
        before = await engine.publish("thing.happened", 5)
        await engine.publish("other.happened", 2)
        await engine.until(lambda: engine.pool.fetchval("SELECT count(*) = 0 FROM spine.outbox"))
        endpoint = await engine.endpoint(receiver.url("/late"), ["thing.*"])
        got = await engine.publish("thing.happened", 2)
        await engine.until_states(delivered=2)
        filter = {"endpoint_id": endpoint.id, "types": ["thing.*"], "since": "2020-01-01T00:00:00+00:00"}
        replay = await _until_done(engine, await _create_replay(engine, "missing", filter, 5))
        again = await _until_done(engine, await _create_replay(engine, "missing", filter, 0))
    assert (replay["started"], replay["done"]) == (5, 5)
    assert again["started"] == 0
    assert sorted(call.event_id for call in receiver.to("/late")) == sorted(before + got)
