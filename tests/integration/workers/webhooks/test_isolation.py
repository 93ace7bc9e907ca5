"""Promise 2: a slow or dead receiver costs only itself; caps hold over all workers together."""

import asyncio

import pytest

from tests.delivery_engine import Engine
from tests.receiver import HANG, Receiver, ScriptedResponse


async def test_hanging_receivers_do_not_stop_the_others(engine: Engine, receiver: Receiver) -> None:
    """While receivers hang on every call, everything for the others is delivered: no call of theirs needs to end for that."""
    for n in range(6):
        receiver.always(f"/hang/{n}", HANG)
        await engine.endpoint(receiver.url(f"/hang/{n}"), ["thing.*"])
    await engine.endpoint(receiver.url("/good"), ["thing.*", "late.*"])
    # 6 x 20 calls that hang are more than the process makes at once: the half that slow lanes may use must not be exceeded.
    async with engine.at_work(max_in_flight=60, max_held=400):
        await engine.publish(count=100)
        await receiver.until_calls("/good", 100)
        await engine.publish("late.happened", count=200)
        await receiver.until_calls("/good", 300)
        hanging = sum(receiver.in_flight[f"/hang/{n}"] for n in range(6))
        for n in range(6):
            receiver.always(f"/hang/{n}", ScriptedResponse(500))
            receiver.release(f"/hang/{n}")
    assert 6 <= hanging <= 30


async def test_the_cap_holds_in_one_worker(engine: Engine, receiver: Receiver) -> None:
    """No more calls to an endpoint are under way at once than its max_in_flight."""
    receiver.always("/hook", ScriptedResponse(delay_s=0.03))
    await engine.endpoint(receiver.url("/hook"), max_in_flight=4)
    async with engine.at_work():
        await engine.publish(count=100)
        await engine.until_states(delivered=100)
    assert receiver.most_in_flight["/hook"] == 4


@pytest.mark.parametrize("cap", [1, 3])
async def test_the_cap_holds_over_two_workers(engine: Engine, receiver: Receiver, cap: int) -> None:
    """Two workers share an endpoint's cap: together they never exceed it, and all is delivered."""
    receiver.always("/hook", ScriptedResponse(delay_s=0.01))
    async with engine.at_work() as one, engine.at_work() as two:

        async def both_know() -> bool:
            return all(
                runtime.heartbeat is not None and len(runtime.heartbeat.live_workers) == 2 for runtime in (one, two)
            )

        await engine.until(both_know)
        await asyncio.sleep(0.3)  # the lanes take the new list up
        await engine.endpoint(receiver.url("/hook"), max_in_flight=cap)
        for _ in range(6):
            await engine.publish(count=20)
            await asyncio.sleep(0.05)
        await engine.until_states(delivered=120)
    assert receiver.most_in_flight["/hook"] == cap
    assert receiver.count["/hook"] == 120


async def test_a_rate_is_kept(engine: Engine, receiver: Receiver) -> None:
    """Calls to an endpoint with a rate are spread: no second holds more than the rate, and one for the edges."""
    await engine.endpoint(receiver.url("/hook"), rate_per_s=20.0)
    async with engine.at_work():
        await engine.publish(count=50)
        calls = await receiver.until_calls("/hook", 50)
    times = [call.at_s for call in calls]
    assert all(sum(start <= at < start + 1 for at in times) <= 22 for start in times)


async def test_parked_rows_of_a_dead_worker_are_found(engine: Engine, receiver: Receiver) -> None:
    """Rows parked behind a lane by a worker that is no more are taken up by another one."""
    await engine.endpoint(receiver.url("/hook"), ["nothing.*"])
    endpoint = await engine.pool.fetchval("SELECT id FROM spine.webhook_endpoints")
    events = await engine.publish(count=30)
    await engine.pool.execute("DELETE FROM spine.outbox")
    await engine.pool.execute(
        "INSERT INTO spine.deliveries_open (workspace_id, id, event_id, type, endpoint_id, due_at, accepted_at) "
        "SELECT $1, replace(e, 'evt_', 'dlv_'), e, 'thing.happened', $2, 'infinity', now() FROM unnest($3::text[]) e",
        engine.workspace_id,
        endpoint,
        events,
    )
    async with engine.at_work():
        await engine.until_states(delivered=30)
    assert [call.event_id for call in receiver.calls[:1]] == events[:1]


async def test_a_lapsed_lease_is_taken_over(engine: Engine, receiver: Receiver) -> None:
    """A row whose lease has ended is due for whoever comes first (promise 3)."""
    await engine.endpoint(receiver.url("/hook"), ["nothing.*"])
    (event_id,) = await engine.publish()
    await engine.pool.execute("DELETE FROM spine.outbox")
    await engine.pool.execute(
        "INSERT INTO spine.deliveries_open (workspace_id, id, event_id, type, endpoint_id, due_at, leased_by, accepted_at) "
        "SELECT $1, replace($2, 'evt_', 'dlv_'), $2, 'thing.happened', id, now() - interval '1 s', 'dead-worker', now() "
        "FROM spine.webhook_endpoints",
        engine.workspace_id,
        event_id,
    )
    async with engine.at_work():
        await engine.until_states(delivered=1)
    assert [call.event_id for call in receiver.calls] == [event_id]


async def test_a_lease_is_renewed_while_a_call_lasts(engine: Engine, receiver: Receiver) -> None:
    """A call that outlasts the lease is not taken over: the lease is renewed, and the receiver is called once."""
    receiver.script("/hook", ScriptedResponse(delay_s=8))
    await engine.endpoint(receiver.url("/hook"))
    async with engine.at_work(lease_s=5), engine.at_work(lease_s=5):
        await engine.publish()
        await engine.until_states(delivered=1)
    assert receiver.count["/hook"] == 1


async def test_a_stopping_worker_gives_back_what_waits(engine: Engine, receiver: Receiver) -> None:
    """Draining lets calls in flight end and records them; what only waited is due at once for others (P-20)."""
    receiver.always("/hook", ScriptedResponse(delay_s=0.5))
    await engine.endpoint(receiver.url("/hook"), max_in_flight=2)
    async with engine.at_work():
        await engine.publish(count=4)
        await receiver.until_calls("/hook", 2)
    rows = await engine.deliveries()
    assert sum(row["state"] == "delivered" for row in rows) == receiver.count["/hook"]
    left = await engine.pool.fetch(
        "SELECT leased_by, due_at <= now() OR due_at = 'infinity' AS claimable FROM spine.deliveries_open"
    )
    assert [tuple(row) for row in left] == [(None, True)] * (4 - receiver.count["/hook"])
