"""Replays, as the workers run them (promise 5)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from spine.kernel import ids
from spine.kernel.database import open_pool
from spine.kernel.settings import WorkSettings
from spine.webhooks.attempts import KEPT_ATTEMPTS
from tests.delivery_engine import Engine
from tests.receiver import Receiver, ScriptedResponse
from workers.webhooks.replay import ReplayRunner

ROWS = 20_000
WINDOW = 1500


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


@asynccontextmanager
async def _runner(engine: Engine) -> AsyncIterator[ReplayRunner]:
    """A replay runner with small windows, whose steps a test runs one by one."""
    pool = await open_pool(engine.url, "spine_worker", "test", 2)
    context: Any = SimpleNamespace(work=WorkSettings(), pool=pool, wakeups=Mock(), wakeup_status=Mock())
    try:
        yield ReplayRunner(context, WINDOW)
    finally:
        pool.terminate()


async def _close(engine: Engine, endpoint_id: str, rows: int = ROWS, series: int = 1, attempts: Any = ()) -> None:
    """Insert dead and delivered deliveries in turn; every 100th is of the type `rare.one`."""
    await engine.pool.execute(
        "INSERT INTO spine.deliveries_closed "
        "(workspace_id, id, event_id, type, endpoint_id, state, series, attempts, accepted_at, created_at, closed_at, xid) "
        "SELECT $1, 'dlv_01M7XZQ13P' || lpad(n::text, 16, '0'), 'evt_' || lpad(n::text, 26, '0'), "
        "CASE WHEN n % 100 = 0 THEN 'rare.one' ELSE 'thing.happened' END, $2, CASE WHEN n % 2 = 0 THEN 'dead' ELSE 'delivered' END, "
        "$4, $5, now(), now(), now() - interval '1 h', pg_current_xact_id() FROM generate_series(1, $3) n",
        engine.workspace_id,
        endpoint_id,
        rows,
        series,
        list(attempts),
    )


async def _replay(engine: Engine, id: str) -> Any:
    return await engine.pool.fetchrow("SELECT * FROM spine.replays WHERE id = $1", id)


@pytest.mark.parametrize("status", ["dead", "delivered"])
@pytest.mark.parametrize("by_endpoint", [True, False])
async def test_a_step_looks_at_a_window_and_keeps_its_place(engine: Engine, status: str, by_endpoint: bool) -> None:
    """A rare type in a long history: each step passes one window, started or not, and another worker goes on from its place."""
    endpoint = await engine.endpoint("http://127.0.0.1:9/")
    await _close(engine, endpoint.id)
    await engine.pool.execute("UPDATE spine.deliveries_closed SET state = $1 WHERE type = 'rare.one'", status)
    filter = {"status": status, "types": ["rare.*"]} | ({"endpoint_id": endpoint.id} if by_endpoint else {})
    id = await _create_replay(engine, "closed", filter, 0)
    await engine.pool.execute("UPDATE spine.replays SET count_position = '' WHERE id = $1", id)
    places, started = [""], [0]
    for _ in range(200):
        async with _runner(engine) as runner:  # each step by a worker that knows nothing of the steps before
            await runner.run_step()
        replay = await _replay(engine, id)
        if replay["count_position"] is None:
            places.append(replay["position"])
            started.append(replay["started"])
        if replay["position"] == replay["upto"]:
            break
    assert replay["total"] == replay["started"] == ROWS // 100
    assert places == sorted(places)
    assert len(places) > ROWS // 2 // WINDOW
    steps = [after - before for before, after in pairwise(started)]
    assert max(steps) <= WINDOW // 50 + 1
    assert (
        await engine.pool.fetchval("SELECT count(*) FROM spine.deliveries_open WHERE type = 'rare.one'") == ROWS // 100
    )


async def test_a_replay_that_fails_waits_and_blocks_no_other(engine: Engine) -> None:
    """A step that Postgres refuses is put off with its error, longer each time; the replay of another workspace and of the same ends."""
    endpoint = await engine.endpoint("http://127.0.0.1:9/")
    await _close(engine, endpoint.id, 2, series=32_767)  # one more series does not fit its column
    broken = await _create_replay(engine, "closed", {"status": "dead"}, 1)
    beside = await _create_replay(engine, "closed", {"status": "dead", "types": ["none.*"]}, 0)
    other = Engine(engine.url, engine.redis_url, engine.pool)
    await other.create_workspace()
    their_endpoint = await other.endpoint("http://127.0.0.1:9/")
    await _close(other, their_endpoint.id, 10)
    theirs = await _create_replay(other, "closed", {"status": "dead"}, 5)
    waits = []
    async with _runner(engine) as runner:
        for _ in range(3):
            while await runner.run_step():
                pass
            row = await engine.pool.fetchrow(
                "SELECT error, failures, status, extract(epoch FROM due_at - now()) AS wait_s FROM spine.replays WHERE id = $1",
                broken,
            )
            waits.append(float(row["wait_s"]))
            await engine.pool.execute("UPDATE spine.replays SET due_at = now() WHERE due_at IS NOT NULL")
    assert (row["error"], row["failures"], row["status"]) == ("NumericValueOutOfRangeError", 3, "running")
    assert waits == sorted(waits)
    assert (await _replay(engine, beside))["status"] == "done"
    assert (await _replay(engine, theirs))["started"] == 5
    await engine.pool.execute("UPDATE spine.deliveries_closed SET series = 1 WHERE series = 32767")
    async with _runner(engine) as runner:
        await engine.pool.execute("UPDATE spine.replays SET due_at = now() WHERE id = $1", broken)
        await runner.run_step()
    replay = await _replay(engine, broken)
    assert (replay["started"], replay["failures"], replay["error"]) == (1, 0, None)


async def test_replays_of_workspaces_take_turns(engine: Engine) -> None:
    """Beside the many replays of one workspace, that of another takes every other step."""
    endpoint = await engine.endpoint("http://127.0.0.1:9/")
    await _close(engine, endpoint.id)
    for _ in range(5):
        await _create_replay(engine, "closed", {"status": "delivered", "types": ["none.*"]}, 0)
    other = Engine(engine.url, engine.redis_url, engine.pool)
    await other.create_workspace()
    their_endpoint = await other.endpoint("http://127.0.0.1:9/")
    await _close(other, their_endpoint.id, 10)
    theirs = await _create_replay(other, "closed", {"status": "dead"}, 5)
    async with _runner(engine) as runner:
        for _ in range(2):
            await runner.run_step()
    assert (await _replay(engine, theirs))["started"] == 5


async def test_what_is_on_its_way_is_not_missing(engine: Engine, receiver: Receiver) -> None:
    """An event that waits for the relay, or whose first attempt is under way, was subscribed to: it is never sent twice."""
    receiver.always("/hook", ScriptedResponse(200, delay_s=3))
    receiver.always("/picky", ScriptedResponse(200))
    unsubscribed = await engine.publish("thing.happened", 3)
    endpoint = await engine.endpoint(receiver.url("/hook"), ["thing.*"])
    picky = await engine.endpoint(receiver.url("/picky"), ["thing.*"], {"n": 1})
    filter = {"types": ["thing.*"], "since": "2020-01-01T00:00:00+00:00"}
    replays = []
    async with engine.running_worker():
        await engine.until(lambda: engine.pool.fetchval("SELECT count(*) = 0 FROM spine.outbox"))
        events = await engine.publish("thing.happened", 4)
        await receiver.until_calls("/hook", 1)
        for one in (endpoint, picky):
            data = {"data": {"n": 1}} if one is picky else {}
            replays.append(await _create_replay(engine, "missing", filter | {"endpoint_id": one.id} | data, 0))
        for id in replays:
            await _until_done(engine, id)
        await engine.until_states(delivered=7 + 2)
    assert sorted(call.event_id for call in receiver.to("/hook")) == sorted(unsubscribed + events)
    assert len(receiver.to("/picky")) == 2


async def test_missing_events_are_found_window_by_window(engine: Engine) -> None:
    """Events that the endpoint lacks lie behind thousands that it does not want: each step passes a window of all events."""
    await engine.pool.execute(
        "INSERT INTO spine.events (workspace_id, id, type, body, accepted_at) "
        "SELECT $1, 'evt_01M7XZQ13P' || lpad(n::text, 16, '0'), CASE WHEN n % 1000 = 0 THEN 'rare.one' ELSE 'thing.happened' END, "
        "'{\"data\":{}}', now() - interval '1 h' FROM generate_series(1, $2) n",
        engine.workspace_id,
        ROWS,
    )
    endpoint = await engine.endpoint("http://127.0.0.1:9/", ["rare.*"])
    filter = {"endpoint_id": endpoint.id, "types": ["rare.*"], "since": "2020-01-01T00:00:00+00:00"}
    id = await _create_replay(engine, "missing", filter, 0)
    steps = 0
    async with _runner(engine) as runner:
        while (await _replay(engine, id))["position"] != "~":
            await runner.run_step()
            steps += 1
    assert steps == ROWS // WINDOW + 1
    assert await engine.pool.fetchval("SELECT count(*) FROM spine.deliveries_open") == ROWS // 1000


async def test_a_replay_keeps_a_bounded_number_of_earlier_attempts(engine: Engine) -> None:
    """A delivery that is replayed again and again keeps the last attempts of earlier series, in order."""
    endpoint = await engine.endpoint("http://127.0.0.1:9/")
    attempts = [{"series": series, "number": number} for series in range(1, 6) for number in range(1, 9)]
    await _close(engine, endpoint.id, 2, series=5, attempts=attempts)
    await _create_replay(engine, "closed", {"status": "dead"}, 1)
    async with _runner(engine) as runner:
        await runner.run_step()
    (row,) = await engine.deliveries(state="pending")
    assert row["attempts"] == attempts[-KEPT_ATTEMPTS:]
    assert row["series"] == 6
