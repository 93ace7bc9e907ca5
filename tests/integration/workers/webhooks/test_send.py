"""Deliveries: the request that a receiver gets, the meaning of its response, and the rows written after it."""

from datetime import datetime
from functools import partial

from standardwebhooks import Webhook

from policies.retry import SCHEDULE_S
from spine.kernel.vault import Vault
from spine.webhooks.endpoint_store import secret_place
from spine.webhooks.signing import new_secret
from tests.delivery_engine import KEY, Engine
from tests.receiver import OK, RESET, Receiver, ScriptedResponse


async def test_the_bytes_that_were_accepted_are_signed_and_sent(engine: Engine, receiver: Receiver) -> None:
    """The body is sent byte for byte and signed so that the Standard Webhooks library verifies it (On the wire)."""
    endpoint = await engine.endpoint(receiver.url("/hook"))
    async with engine.running_worker():
        (event_id,) = await engine.publish(data={"text": "naïve ☃"})
        (call,) = await receiver.until_calls("/hook", 1)
    body = await engine.pool.fetchval("SELECT body FROM spine.events WHERE id = $1", event_id)
    assert call.body == body
    assert call.headers["webhook-id"] == event_id
    assert call.headers["content-type"] == "application/json"
    assert call.headers["user-agent"].startswith("Spine/")
    assert Webhook(endpoint.secret).verify(call.body.decode(), call.headers)


async def test_a_delivered_row_has_its_attempt(engine: Engine, receiver: Receiver) -> None:
    """A delivered row leaves the queue with its attempt: number, times, status and response text."""
    receiver.script("/hook", ScriptedResponse(201, body=b"caf\xe9 \x00 ok"))
    await engine.endpoint(receiver.url("/hook"))
    async with engine.running_worker():
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
    """Failures 1 to 7 wait their step after the end of the attempt; the eighth makes a dead letter and emits an event."""
    receiver.always("/hook", ScriptedResponse(500, body=b"no"))
    endpoint = await engine.endpoint(receiver.url("/hook"))
    await engine.endpoint(receiver.url("/system"), ["delivery.*"])
    failed = "SELECT failures = $1 FROM spine.deliveries_open WHERE leased_by IS NULL"
    async with engine.running_worker():
        (event_id,) = await engine.publish()
        for failures, step_s in enumerate(SCHEDULE_S, 1):
            await engine.until(partial(engine.pool.fetchval, failed, failures))
            await engine.advance(step_s)
        (event,) = await receiver.until_calls("/system", 1)
    (dead,) = await engine.deliveries(endpoint_id=endpoint.id)
    assert (dead["state"], dead["reason"]) == ("dead", "attempts_exhausted")
    assert [attempt["number"] for attempt in dead["attempts"]] == list(range(1, 9))
    assert all(attempt["error"] == "http_500" for attempt in dead["attempts"])
    assert dead["attempts"][-1]["next_attempt_at"] is None
    steps = [_seconds(attempt["ended_at"], attempt["next_attempt_at"]) for attempt in dead["attempts"][:-1]]
    assert steps == list(SCHEDULE_S)
    assert {call.event_id for call in receiver.to("/hook")} == {event_id}
    assert len(receiver.to("/hook")) == 8
    assert b'"delivery.dead_lettered"' in event.body
    assert endpoint.id.encode() in event.body


async def test_no_attempt_starts_before_it_is_due(engine: Engine, receiver: Receiver) -> None:
    """An attempt never starts before it is due (Verdicts)."""
    receiver.script("/hook", ScriptedResponse(500), RESET)
    await engine.endpoint(receiver.url("/hook"))
    async with engine.running_worker():
        await engine.publish()
        (row,) = await engine.until_states(delivered=1)
    first, second, third = row["attempts"]
    assert second["started_at"] >= first["next_attempt_at"]
    assert third["started_at"] >= second["next_attempt_at"]
    assert second["error"] == "connection_reset"


async def test_retry_after_is_honoured_on_429_and_503(engine: Engine, receiver: Receiver) -> None:
    """429 and 503 with Retry-After wait for the longer of the step and the Retry-After."""
    receiver.script("/busy", ScriptedResponse(503, headers={"Retry-After": "90"}))
    receiver.script("/hurry", ScriptedResponse(429, headers={"Retry-After": "0"}))
    await engine.endpoint(receiver.url("/busy"))
    await engine.endpoint(receiver.url("/hurry"))
    async with engine.running_worker():
        await engine.publish()
        await receiver.until_calls("/hurry", 2)
        await engine.until_states(delivered=1, retrying=1)
        (busy,) = await engine.deliveries(state="retrying")
    attempt = busy["attempts"][0]
    assert attempt["retry_after_s"] == 90
    assert _seconds(attempt["ended_at"], attempt["next_attempt_at"]) == 90


async def test_410_ends_the_delivery_and_disables_the_endpoint(engine: Engine, receiver: Receiver) -> None:
    """After 410 the delivery is dead, the endpoint disabled, its waiting deliveries held, and one event emitted."""
    receiver.always("/gone", ScriptedResponse(500))
    endpoint = await engine.endpoint(receiver.url("/gone"), ["thing.*"])
    await engine.endpoint(receiver.url("/system"), ["webhook_endpoint.*"])
    async with engine.running_worker():
        await engine.publish(count=3)
        await engine.until_states(retrying=3)
        receiver.always("/gone", ScriptedResponse(410))
        await engine.publish()
        (event,) = await receiver.until_calls("/system", 1)
        await engine.until_states(dead=1, held=3, delivered=1)
    row = await engine.pool.fetchrow("SELECT * FROM spine.webhook_endpoints WHERE id = $1", endpoint.id)
    assert (row["status"], row["disabled_reason"], row["version"]) == ("disabled", "gone", 2)
    assert b'"disabled_reason":"gone"' in event.body
    assert receiver.count["/system"] == 1
    (dead,) = await engine.deliveries(state="dead")
    assert dead["reason"] == "endpoint_gone"


async def test_deliveries_of_a_disabled_endpoint_are_held(engine: Engine, receiver: Receiver) -> None:
    """Deliveries of a disabled endpoint are held, also after a race, and sent once it is enabled (promise 4)."""
    endpoint = await engine.endpoint(receiver.url("/hook"), status="disabled")
    async with engine.running_worker():
        events = await engine.publish(count=5)
        await engine.until_states(held=5)
        assert receiver.count["/hook"] == 0
        await engine.pool.execute(
            "UPDATE spine.webhook_endpoints SET status = 'enabled', version = 2 WHERE id = $1", endpoint.id
        )
        await engine.until_states(delivered=5)
    assert {call.event_id for call in receiver.calls} == set(events)


async def test_retries_of_deleted_endpoints_and_erased_payloads_are_dead(engine: Engine, receiver: Receiver) -> None:
    """A retry whose endpoint was deleted, or whose payload was erased, is dead with that reason."""
    receiver.always("/a", ScriptedResponse(500))
    receiver.always("/b", ScriptedResponse(500))
    deleted = await engine.endpoint(receiver.url("/a"), ["one.*"])
    await engine.endpoint(receiver.url("/b"), ["two.*"])
    async with engine.running_worker():
        await engine.publish("one.happened")
        (event_id,) = await engine.publish("two.happened")
        await engine.until_states(retrying=2)
        await engine.pool.execute("UPDATE spine.webhook_endpoints SET deleted_at = now() WHERE id = $1", deleted.id)
        await engine.pool.execute("UPDATE spine.events SET body = NULL WHERE id = $1", event_id)
        rows = await engine.until_states(dead=2)
    assert {row["reason"] for row in rows} == {"endpoint_deleted", "payload_erased"}


async def test_both_secrets_sign_during_a_rotation(engine: Engine, receiver: Receiver) -> None:
    """While an endpoint has two secrets, each of them verifies a request."""
    endpoint, newer = await engine.endpoint(receiver.url("/hook")), new_secret()
    await engine.pool.execute(
        "INSERT INTO spine.endpoint_secrets (workspace_id, endpoint_id, secret) VALUES ($1, $2, $3)",
        engine.workspace_id,
        endpoint.id,
        Vault.from_text(KEY).seal(newer.encode(), secret_place(engine.workspace_id, endpoint.id)),
    )
    async with engine.running_worker():
        await engine.publish()
        (call,) = await receiver.until_calls("/hook", 1)
    for secret in (endpoint.secret, newer):
        assert Webhook(secret).verify(call.body.decode(), call.headers)
    assert call.headers["webhook-signature"].count("v1,") == 2


async def test_days_of_failures_disable_an_endpoint(engine: Engine, receiver: Receiver) -> None:
    """Five days of failures without a success disable the endpoint at its next failure, once (promise 4)."""
    receiver.always("/hook", ScriptedResponse(500))
    endpoint = await engine.endpoint(receiver.url("/hook"), ["thing.*"])
    async with engine.running_worker():
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


async def test_one_success_resets_failing_since(engine: Engine, receiver: Receiver) -> None:
    """The first failure sets `failing_since`, and a success clears it."""
    receiver.script("/hook", ScriptedResponse(500), OK)
    await engine.endpoint(receiver.url("/hook"))
    since = "SELECT failing_since FROM spine.endpoint_health"
    async with engine.running_worker():
        await engine.publish()
        await engine.until_states(retrying=1)
        assert await engine.pool.fetchval(since) is not None
        await engine.until_states(delivered=1)
    assert await engine.pool.fetchval(since) is None


async def test_the_chain_of_dead_letter_events_ends(engine: Engine, receiver: Receiver) -> None:
    """A dead delivery of a dead letter event emits an event, but a dead delivery of that one does not."""
    receiver.always("/a", ScriptedResponse(410))
    receiver.always("/b", ScriptedResponse(410))
    # Not "*": each disabling emits an event as well, whose delivery would die again after each enabling.
    await engine.endpoint(receiver.url("/a"), ["thing.*", "delivery.*"])
    await engine.endpoint(receiver.url("/b"), ["delivery.*"])
    enable = "UPDATE spine.webhook_endpoints SET status = 'enabled', version = version + 1 WHERE status = 'disabled'"
    count = "SELECT count(*) FROM spine.events WHERE type = 'delivery.dead_lettered'"
    async with engine.running_worker():
        await engine.publish()
        for _ in range(6):
            await engine.until(
                lambda: engine.pool.fetchval(
                    "SELECT NOT EXISTS (SELECT FROM spine.deliveries_open WHERE state <> 'held')"
                )
            )
            await engine.pool.execute(enable)
        await engine.until(
            lambda: engine.pool.fetchval(
                "SELECT NOT EXISTS (SELECT FROM spine.outbox) AND NOT EXISTS (SELECT FROM spine.deliveries_open WHERE state <> 'held')"
            )
        )
    assert await engine.pool.fetchval(count) <= 2
