"""Delivery inside the engine: what a receiver gets, what its answer means, and what stands in the ledger after it."""

from datetime import datetime
from functools import partial

from standardwebhooks import Webhook

from policies.retry import SCHEDULE_S
from tests.delivery_engine import Engine
from tests.receiver import OK, RESET, Receiver, ScriptedResponse


async def test_the_bytes_that_were_accepted_are_signed_and_sent(engine: Engine, receiver: Receiver) -> None:
    """The body is sent byte for byte and signed so that the Standard Webhooks library verifies it (On the wire)."""
    endpoint = await engine.endpoint(receiver.url("/hook"))
    async with engine.at_work():
        (event_id,) = await engine.publish(data={"text": "naïve ☃"})
        (call,) = await receiver.until_calls("/hook", 1)
    body = await engine.pool.fetchval("SELECT body FROM spine.events WHERE id = $1", event_id)
    assert call.body == body
    assert call.headers["webhook-id"] == event_id
    assert call.headers["content-type"] == "application/json"
    assert call.headers["user-agent"].startswith("Spine/")
    assert Webhook(endpoint.secret).verify(call.body.decode(), call.headers)


async def test_a_delivered_row_tells_of_its_attempt(engine: Engine, receiver: Receiver) -> None:
    """What was delivered leaves the queue with its attempt: number, times, status and the answer's text."""
    receiver.script("/hook", ScriptedResponse(201, body=b"caf\xe9 \x00 ok"))
    await engine.endpoint(receiver.url("/hook"))
    async with engine.at_work():
        await engine.publish()
        (row,) = await engine.until_states(delivered=1)
    (attempt,) = row["attempts"]
    assert (attempt["number"], attempt["series"], attempt["status_code"], attempt["error"]) == (1, 1, 201, None)
    assert attempt["response_body"] == "caf\ufffd \ufffd ok"
    assert attempt["started_at"] <= attempt["ended_at"]
    assert await engine.pool.fetchval("SELECT count(*) FROM spine.deliveries_open") == 0


def _seconds(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


async def test_failures_are_retried_by_the_schedule_until_dead(engine: Engine, receiver: Receiver) -> None:
    """Failure n waits its step from the end of the attempt, n = 1..7; the eighth makes the delivery dead, and it is told of."""
    receiver.always("/hook", ScriptedResponse(500, body=b"no"))
    endpoint = await engine.endpoint(receiver.url("/hook"))
    await engine.endpoint(receiver.url("/told"), ["delivery.*"])
    failed = "SELECT failures = $1 FROM spine.deliveries_open WHERE leased_by IS NULL"
    async with engine.at_work():
        (event_id,) = await engine.publish()
        for failures, step_s in enumerate(SCHEDULE_S, 1):
            await engine.until(partial(engine.pool.fetchval, failed, failures))
            await engine.advance(step_s)
        (told,) = await receiver.until_calls("/told", 1)
    (dead,) = await engine.deliveries(endpoint_id=endpoint.id)
    assert (dead["state"], dead["reason"]) == ("dead", "attempts_exhausted")
    assert [attempt["number"] for attempt in dead["attempts"]] == list(range(1, 9))
    assert all(attempt["error"] == "http_500" for attempt in dead["attempts"])
    assert dead["attempts"][-1]["next_attempt_at"] is None
    steps = [_seconds(attempt["ended_at"], attempt["next_attempt_at"]) for attempt in dead["attempts"][:-1]]
    assert steps == list(SCHEDULE_S)
    assert {call.event_id for call in receiver.to("/hook")} == {event_id}
    assert len(receiver.to("/hook")) == 8
    assert b'"delivery.dead_lettered"' in told.body
    assert endpoint.id.encode() in told.body


async def test_no_attempt_starts_before_it_is_due(engine: Engine, receiver: Receiver) -> None:
    """An attempt starts no earlier than due (Verdicts)."""
    receiver.script("/hook", ScriptedResponse(500), RESET)
    await engine.endpoint(receiver.url("/hook"))
    async with engine.at_work():
        await engine.publish()
        (row,) = await engine.until_states(delivered=1)
    first, second, third = row["attempts"]
    assert second["started_at"] >= first["next_attempt_at"]
    assert third["started_at"] >= second["next_attempt_at"]
    assert second["error"] == "connection_reset"


async def test_retry_after_is_honoured_on_429_and_503(engine: Engine, receiver: Receiver) -> None:
    """429 and 503 with Retry-After wait for the longer of the step and what was asked."""
    receiver.script("/busy", ScriptedResponse(503, headers={"Retry-After": "90"}))
    receiver.script("/hurry", ScriptedResponse(429, headers={"Retry-After": "0"}))
    await engine.endpoint(receiver.url("/busy"))
    await engine.endpoint(receiver.url("/hurry"))
    async with engine.at_work():
        await engine.publish()
        await receiver.until_calls("/hurry", 2)
        await engine.until_states(delivered=1, retrying=1)
        (busy,) = await engine.deliveries(state="retrying")
    attempt = busy["attempts"][0]
    assert attempt["retry_after_s"] == 90
    assert _seconds(attempt["ended_at"], attempt["next_attempt_at"]) == 90


async def test_410_ends_the_delivery_and_disables_the_endpoint(engine: Engine, receiver: Receiver) -> None:
    """410: dead at once, endpoint disabled, what waits for it held, `webhook_endpoint.disabled` told once."""
    receiver.always("/gone", ScriptedResponse(500))
    endpoint = await engine.endpoint(receiver.url("/gone"), ["thing.*"])
    await engine.endpoint(receiver.url("/told"), ["webhook_endpoint.*"])
    async with engine.at_work():
        await engine.publish(count=3)
        await engine.until_states(retrying=3)
        receiver.always("/gone", ScriptedResponse(410))
        await engine.publish()
        (told,) = await receiver.until_calls("/told", 1)
        await engine.until_states(dead=1, held=3, delivered=1)
    row = await engine.pool.fetchrow("SELECT * FROM spine.webhook_endpoints WHERE id = $1", endpoint.id)
    assert (row["status"], row["disabled_reason"], row["version"]) == ("disabled", "gone", 2)
    assert b'"disabled_reason":"gone"' in told.body
    assert receiver.count["/told"] == 1
    (dead,) = await engine.deliveries(state="dead")
    assert dead["reason"] == "endpoint_gone"


async def test_disabled_is_held_and_released_when_enabled(engine: Engine, receiver: Receiver) -> None:
    """Events for a disabled endpoint are held, not dropped; what a race left held is released once it is enabled (promise 4)."""
    endpoint = await engine.endpoint(receiver.url("/hook"), status="disabled")
    async with engine.at_work():
        events = await engine.publish(count=5)
        await engine.until_states(held=5)
        assert receiver.count["/hook"] == 0
        await engine.pool.execute(
            "UPDATE spine.webhook_endpoints SET status = 'enabled', version = 2 WHERE id = $1", endpoint.id
        )
        await engine.until_states(delivered=5)
    assert {call.event_id for call in receiver.calls} == set(events)


async def test_deleted_and_erased_end_as_dead(engine: Engine, receiver: Receiver) -> None:
    """A retry whose endpoint was deleted, or whose payload was erased meanwhile, is dead and says why."""
    receiver.always("/a", ScriptedResponse(500))
    receiver.always("/b", ScriptedResponse(500))
    deleted = await engine.endpoint(receiver.url("/a"), ["one.*"])
    await engine.endpoint(receiver.url("/b"), ["two.*"])
    async with engine.at_work():
        await engine.publish("one.happened")
        (event_id,) = await engine.publish("two.happened")
        await engine.until_states(retrying=2)
        await engine.pool.execute("UPDATE spine.webhook_endpoints SET deleted_at = now() WHERE id = $1", deleted.id)
        await engine.pool.execute("UPDATE spine.events SET body = NULL WHERE id = $1", event_id)
        rows = await engine.until_states(dead=2)
    assert {row["reason"] for row in rows} == {"endpoint_deleted", "payload_erased"}


async def test_a_rotated_secret_signs_beside_the_new_one(engine: Engine, receiver: Receiver) -> None:
    """While two secrets are in force, each of them verifies what is sent."""
    endpoint = await engine.endpoint(receiver.url("/hook"))
    other = await engine.endpoint(receiver.url("/other"))
    await engine.pool.execute(
        "INSERT INTO spine.endpoint_secrets (workspace_id, endpoint_id, secret) "
        "SELECT workspace_id, $1, secret FROM spine.endpoint_secrets WHERE endpoint_id = $2",
        endpoint.id,
        other.id,
    )
    async with engine.at_work():
        await engine.publish()
        (call,) = await receiver.until_calls("/hook", 1)
    for secret in (endpoint.secret, other.secret):
        assert Webhook(secret).verify(call.body.decode(), call.headers)
    assert call.headers["webhook-signature"].count("v1,") == 2


async def test_days_of_failures_disable_an_endpoint(engine: Engine, receiver: Receiver) -> None:
    """Five days of failures without one success disable the endpoint at its next failure, once (promise 4)."""
    receiver.always("/hook", ScriptedResponse(500))
    endpoint = await engine.endpoint(receiver.url("/hook"), ["thing.*"])
    async with engine.at_work():
        await engine.publish()
        await engine.until_states(retrying=1)
        since = (
            "UPDATE spine.endpoint_health SET failing_since = now() - make_interval(days => $2) WHERE endpoint_id = $1"
        )
        await engine.pool.execute(since, endpoint.id, 4)
        await engine.publish()
        await engine.until_states(retrying=2)
        assert (
            await engine.pool.fetchval("SELECT status FROM spine.webhook_endpoints WHERE id = $1", endpoint.id)
            == "enabled"
        )
        await engine.pool.execute(since, endpoint.id, 5)
        await engine.publish()
        await engine.until_states(held=3)
    assert (
        await engine.pool.fetchval("SELECT disabled_reason FROM spine.webhook_endpoints WHERE id = $1", endpoint.id)
        == "failing"
    )
    assert await engine.pool.fetchval("SELECT count(*) FROM spine.events WHERE type = 'webhook_endpoint.disabled'") == 1


async def test_one_success_ends_the_failing(engine: Engine, receiver: Receiver) -> None:
    """`failing_since` is set by the first failure and cleared by a success."""
    receiver.script("/hook", ScriptedResponse(500), OK)
    await engine.endpoint(receiver.url("/hook"))
    since = "SELECT failing_since FROM spine.endpoint_health"
    async with engine.at_work():
        await engine.publish()
        await engine.until_states(retrying=1)
        assert await engine.pool.fetchval(since) is not None
        await engine.until_states(delivered=1)
    assert await engine.pool.fetchval(since) is None


async def test_two_dead_endpoints_do_not_keep_each_other_busy(engine: Engine, receiver: Receiver) -> None:
    """The death of a notice is told of, the death of that no more: the chain of dead letters ends."""
    receiver.always("/a", ScriptedResponse(410))
    receiver.always("/b", ScriptedResponse(410))
    # Not all events: being disabled is an event as well, and its dead letter another one each time they are revived.
    await engine.endpoint(receiver.url("/a"), ["thing.*", "delivery.*"])
    await engine.endpoint(receiver.url("/b"), ["delivery.*"])
    revive = "UPDATE spine.webhook_endpoints SET status = 'enabled', version = version + 1 WHERE status = 'disabled'"
    count = "SELECT count(*) FROM spine.events WHERE type = 'delivery.dead_lettered'"
    async with engine.at_work():
        await engine.publish()
        for _ in range(6):
            await engine.until(
                lambda: engine.pool.fetchval(
                    "SELECT NOT EXISTS (SELECT FROM spine.deliveries_open WHERE state <> 'held')"
                )
            )
            await engine.pool.execute(revive)
        await engine.until(
            lambda: engine.pool.fetchval(
                "SELECT NOT EXISTS (SELECT FROM spine.outbox) AND NOT EXISTS (SELECT FROM spine.deliveries_open WHERE state <> 'held')"
            )
        )
    assert await engine.pool.fetchval(count) <= 2
