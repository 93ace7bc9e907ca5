"""Promise 2: a slow or dead receiver delays only its own deliveries; limits hold for all workers together."""

import asyncio

import pytest

from tests import raw_receiver
from tests.delivery_engine import Engine
from tests.receiver import HANG, Receiver, ScriptedResponse


async def test_hanging_receivers_do_not_stop_the_others(engine: Engine, receiver: Receiver) -> None:
    """While receivers hang on every call, the deliveries to the others arrive, before any hanging call ends."""
    for n in range(6):
        receiver.always(f"/hang/{n}", HANG)
        await engine.endpoint(receiver.url(f"/hang/{n}"), ["thing.*"])
    await engine.endpoint(receiver.url("/good"), ["thing.*", "late.*"])
    # 6 x 20 hanging calls are more than the process may make: slow queues must not exceed their half.
    async with engine.running_worker(max_in_flight=60, max_held=400):
        await engine.publish(count=100)
        await receiver.until_calls("/good", 100)
        await engine.publish("late.happened", count=200)
        await receiver.until_calls("/good", 300)
        hanging = sum(receiver.in_flight[f"/hang/{n}"] for n in range(6))
        for n in range(6):
            receiver.always(f"/hang/{n}", ScriptedResponse(500))
            receiver.release(f"/hang/{n}")
    assert 6 <= hanging <= 30


async def test_a_receiver_that_floods_does_not_stop_the_others(engine: Engine, receiver: Receiver) -> None:
    """A receiver that answers every call with `100 Continue` without end costs only itself: its attempts fail at once."""
    flood = raw_receiver.Flood(b"", raw_receiver.CONTINUE * 1000)
    async with raw_receiver.receiver(flood) as flooder, engine.running_worker():
        endpoint = await engine.endpoint(flooder.url("/flood"), ["thing.*"])
        await engine.endpoint(receiver.url("/good"), ["thing.*"])
        await engine.publish(count=60)
        await receiver.until_calls("/good", 60)

        async def all_attempted() -> list[list[dict[str, object]]]:
            attempts = [row["attempts"] for row in await engine.deliveries(endpoint_id=endpoint.id)]
            return attempts if len(attempts) == 60 and all(attempts) else []

        attempts = await engine.until(all_attempted)
    assert {attempt["error"] for row in attempts for attempt in row} == {"invalid_response"}


@pytest.mark.parametrize("cap", [1, 3])
async def test_the_cap_holds_over_two_workers(engine: Engine, receiver: Receiver, cap: int) -> None:
    """Two workers share an endpoint's cap: together they reach it and never exceed it, and all deliveries arrive."""
    receiver.always("/hook", HANG)
    async with engine.running_worker() as one, engine.running_worker() as two:

        async def both_registered() -> bool:
            return all(
                runtime.heartbeat is not None and len(runtime.heartbeat.live_workers) == 2 for runtime in (one, two)
            )

        await engine.until(both_registered)
        await asyncio.sleep(0.3)  # the endpoint queues apply the new list of workers
        await engine.endpoint(receiver.url("/hook"), max_in_flight=cap)
        for _ in range(6):
            await engine.publish(count=20)
            await asyncio.sleep(0.05)

        async def cap_reached() -> bool:
            return receiver.in_flight["/hook"] >= cap

        await engine.until(cap_reached)
        receiver.always("/hook", ScriptedResponse(delay_s=0.01))
        receiver.release("/hook")
        await engine.until_states(delivered=120)
    assert receiver.most_in_flight["/hook"] == cap
    assert receiver.count["/hook"] == 120 + cap  # the calls that hung are retried


async def test_a_rate_is_kept(engine: Engine, receiver: Receiver) -> None:
    """Calls to an endpoint with a rate limit are spread: no second has more than 22 calls at 20 per second."""
    await engine.endpoint(receiver.url("/hook"), rate_per_s=20.0)
    async with engine.running_worker():
        await engine.publish(count=50)
        calls = await receiver.until_calls("/hook", 50)
    times = [call.at_s for call in calls]
    assert all(sum(start <= at < start + 1 for at in times) <= 22 for start in times)


async def test_parked_rows_of_a_dead_worker_are_found(engine: Engine, receiver: Receiver) -> None:
    """Rows that a dead worker has parked are claimed by another worker."""
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
    async with engine.running_worker():
        await engine.until_states(delivered=30)
    assert [call.event_id for call in receiver.calls[:1]] == events[:1]


async def test_an_expired_lease_is_taken_over(engine: Engine, receiver: Receiver) -> None:
    """A row whose lease has expired is claimed by any worker (promise 3)."""
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
    async with engine.running_worker():
        await engine.until_states(delivered=1)
    assert [call.event_id for call in receiver.calls] == [event_id]


async def test_a_lease_is_renewed_while_a_call_lasts(engine: Engine, receiver: Receiver) -> None:
    """The lease of a call that lasts longer than the lease is renewed, and the receiver is called once."""
    receiver.script("/hook", ScriptedResponse(delay_s=8))
    await engine.endpoint(receiver.url("/hook"))
    async with engine.running_worker(lease_s=5), engine.running_worker(lease_s=5):
        await engine.publish()
        await engine.until_states(delivered=1)
    assert receiver.count["/hook"] == 1


async def test_a_stopping_worker_releases_waiting_deliveries(engine: Engine, receiver: Receiver) -> None:
    """A drain waits for the calls in flight and records them; waiting deliveries are due at once for other workers (P-20)."""
    receiver.always("/hook", ScriptedResponse(delay_s=0.5))
    await engine.endpoint(receiver.url("/hook"), max_in_flight=2)
    async with engine.running_worker():
        await engine.publish(count=4)
        await receiver.until_calls("/hook", 2)
    rows = await engine.deliveries()
    assert sum(row["state"] == "delivered" for row in rows) == receiver.count["/hook"]
    left = await engine.pool.fetch(
        "SELECT leased_by, due_at <= now() OR due_at = 'infinity' AS claimable FROM spine.deliveries_open"
    )
    assert [tuple(row) for row in left] == [(None, True)] * (4 - receiver.count["/hook"])
