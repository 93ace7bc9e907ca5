"""Receipts over the callback route: signed, stored once, and applied in any order."""

import asyncio
import time
from datetime import timedelta
from typing import Any

import httpx
import pytest

from spine.notifications.receipts import apply_parked_reports
from tests.api import Api, Organisation
from tests.database import owner_connection
from tests.message_engine import SECRET, DiesAfterCalls, NotificationsClient, fetch_value, post_receipt, sending, until

SILENT = "+910000000200"
"""WhatsApp accepts this recipient's message and sends no receipt; SMS delivers it."""


@pytest.fixture
def account(client: NotificationsClient) -> str:
    """A sandbox account whose secret is known, preferred to the workspace's own accounts."""
    client.policy(("whatsapp", "delivered", 600), ("sms", "delivered", 600), deadline_s=2000)
    body = {"channel": "whatsapp", "kind": "sandbox", "priority": 1, "credentials": {"secret": SECRET}}
    return str(client.post("/notifications/v1/provider_accounts", body)["id"])


def report(attempt: Any, status: str, timestamp: str = "1", **more: str) -> dict[str, Any]:
    """The body of a callback that reports this status of an attempt."""
    id = attempt["provider_message_id"]
    return {"attempt_id": attempt["id"], "id": id, "status": status, "timestamp": timestamp, **more}


async def test_receipts_are_signed_stored_once_and_applied_in_any_order(
    api: Api, client: NotificationsClient, account: str, provider: httpx.Client
) -> None:
    """Bad and old signatures get 401; a repeated receipt and a late `sent` change nothing (cases 1, 3, 15)."""
    id = client.send(to=SILENT)
    async with sending(api):
        attempt = (await client.until(id, "sent"))["attempts"][0]
        timestamp = "2026-11-02T10:00:00Z"
        delivered = report(attempt, "delivered", timestamp)
        for refused in (
            post_receipt(provider, account, delivered, at_s=time.time() - 600),
            post_receipt(provider, account, delivered, secret="whsec_" + "B" * 32),
            post_receipt(provider, "prv_01J9XAAAAAAAAAAAAAAAAAAAAA", delivered),
            await asyncio.to_thread(provider.post, f"/notifications/v1/inbound/{account}", json=delivered),
        ):
            assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")
        assert client.message(id)["status"] == "sent"
        for status in ("delivered", "delivered", "delivered", "sent", "not_a_status"):
            assert post_receipt(provider, account, report(attempt, status, timestamp)).status_code == 200
    assert client.event_names(id) == ["created", "sent", "delivered"]
    stored = await fetch_value(api, "SELECT count(*) FROM spine.receipts WHERE provider_account_id = $1", account)
    assert stored == 3
    assert [entry["actor"]["type"] for entry in client.audit(id) if entry["kind"] == "receipt"] == ["provider"] * 3


async def test_a_reply_before_the_result_leaves_the_attempt_its_own_id(
    api: Api, client: NotificationsClient, account: str, provider: httpx.Client
) -> None:
    """A reply that overtakes the response to the send is told, and its id does not become the attempt's."""
    id = client.send(to=SILENT)

    async def started() -> Any:
        return (await asyncio.to_thread(client.message, id))["attempts"]

    async with sending(api, (DiesAfterCalls,)):
        (attempt,) = await until(started, "no attempt was started")
        replied = {"attempt_id": attempt["id"], "id": "reply_1", "status": "replied", "timestamp": "1", "text": "Yes"}
        assert post_receipt(provider, account, replied).status_code == 200
    assert client.message(id)["attempts"][0]["provider_message_id"] is None
    assert [event["data"]["reply"] for event in client.events("message.replied")] == ["Yes"]


async def test_credentials_that_cannot_be_opened_are_no_fault_of_the_provider(
    api: Api, client: NotificationsClient, account: str, provider: httpx.Client
) -> None:
    """While the operator's key is missing a callback gets 503, so that the provider sends it again."""
    await fetch_value(api, "UPDATE spine.provider_accounts SET credentials = '\\x0102' WHERE id = $1", account)
    body = {"attempt_id": None, "id": "x", "status": "delivered", "timestamp": "1"}
    answer = post_receipt(provider, account, body)
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")


async def test_a_failure_by_receipt_falls_back_at_once(
    api: Api, client: NotificationsClient, account: str, provider: httpx.Client
) -> None:
    """A receipt `failed` does not wait for the timer; a later `delivered` overrides it (cases 4, 7, 9)."""
    id = client.send(to=SILENT)
    async with sending(api):
        attempt = (await client.until(id, "sent"))["attempts"][0]
        assert post_receipt(provider, account, report(attempt, "failed", error="131026")).status_code == 200
        found = await client.until(id, "delivered")
        assert (found["channel"], found["duplicate_possible"]) == ("sms", False)
        assert (found["attempts"][0]["class"], found["attempts"][0]["provider_code"]) == ("recipient", "131026")
        assert post_receipt(provider, account, report(attempt, "delivered", "2")).status_code == 200
    found = client.message(id)
    assert (found["duplicate_possible"], found["attempts"][0]["late_success"]) == (True, True)
    assert client.event_names(id) == ["created", "sent", "sent", "delivered"]


async def test_a_delivery_reported_during_the_fallbacks_call_is_a_possible_duplicate(
    api: Api, client: NotificationsClient, account: str, provider: httpx.Client
) -> None:
    """WhatsApp failed, and reports `delivered` while SMS is being called: both may have arrived (failure case 4)."""
    accounts = {one["channel"]: one["id"] for one in client.get("/notifications/v1/provider_accounts")["data"]}
    slow = {"sandbox": {"outage": "slow_ms", "slow_ms": 4000}}
    client.post(f"/notifications/v1/provider_accounts/{accounts['sms']}", slow, status=200, method="PATCH")
    id = client.send(to=SILENT)

    async def sms_called() -> Any:
        return len((await asyncio.to_thread(client.message, id))["attempts"]) == 2

    async def sms_accepted() -> Any:
        return (await asyncio.to_thread(client.message, id))["attempts"][1]["outcome"] == "accepted"

    async with sending(api):
        attempt = (await client.until(id, "sent"))["attempts"][0]
        post_receipt(provider, account, report(attempt, "failed", error="131026"))
        await until(sms_called, "SMS was not called")
        post_receipt(provider, account, report(attempt, "delivered", "2"))
        found = client.message(id)
        assert (found["status"], found["attempts"][1]["outcome"]) == ("delivered", None)
        await until(sms_accepted, "SMS did not respond")
    assert client.event_names(id) == ["created", "sent", "delivered", "sent"]
    assert client.message(id)["duplicate_possible"] is True


async def test_a_receipt_of_an_unknown_message_is_parked_and_applied_later(
    api: Api, client: NotificationsClient, account: str, provider: httpx.Client
) -> None:
    """The response is never 404; the receipt is applied as soon as its attempt is known (failure case 2)."""
    id = client.send(to=SILENT, channels=["whatsapp"])
    early = {"id": "unknown-yet", "status": "delivered", "timestamp": "1"}
    assert post_receipt(provider, account, early).status_code == 200
    async with sending(api):
        attempt = (await client.until(id, "sent"))["attempts"][0]
        update = "UPDATE spine.attempts SET provider_message_id = 'unknown-yet' WHERE id = $1"
        await fetch_value(api, update, attempt["id"])
        assert (await client.until(id, "delivered"))["attempts"][0]["status"] == "delivered"


PARK = """
    INSERT INTO spine.receipts (workspace_id, id, provider_account_id, provider_message_id, status, reported_at, raw, received_at)
    SELECT $1, 'rct_' || $2 || n, 'prv_x', $2 || n, 'delivered', '1', '{}', now() - $4::interval FROM generate_series(1, $3) n
"""
"""Parks receipts of messages that nobody knows."""


async def test_parked_receipts_are_looked_at_in_bounded_steps(api: Api, org: Organisation) -> None:
    """A look takes a batch, and each parked receipt is left alone until it is twice as old: none is scanned every time."""
    workspace_id = org.test.workspace_id
    async with owner_connection(api) as owner:
        await owner.execute("DELETE FROM spine.receipts WHERE attempt_id IS NULL")
        await owner.execute(PARK, workspace_id, "young", 500, timedelta(0))
        await owner.execute(PARK, workspace_id, "hour", 50, timedelta(hours=1))
        assert [(await apply_parked_reports(owner, 200))[1] for _ in range(4)] == [200, 200, 150, 0]
        looks = await owner.fetch(
            "SELECT look_at - received_at AS age, received_at > now() - interval '1 minute' AS young FROM spine.receipts "
            "WHERE workspace_id = $1",
            workspace_id,
        )
    assert {row["age"] >= timedelta(seconds=5) for row in looks if row["young"]} == {True}
    assert {row["age"] >= timedelta(hours=2) for row in looks if not row["young"]} == {True}


async def test_the_look_at_parked_receipts_reads_an_index_of_those_that_are_due(api: Api, org: Organisation) -> None:
    """Beside 20,000 parked receipts that are not due, a look reads none of them."""
    async with owner_connection(api) as owner, owner.transaction():
        await owner.execute(PARK, org.test.workspace_id, "later", 20_000, timedelta(0))
        await owner.execute("UPDATE spine.receipts SET look_at = now() + interval '1 hour' WHERE attempt_id IS NULL")
        await owner.execute("SELECT pg_stat_reset_single_table_counters('spine.receipts'::regclass)")
        read = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'receipts'"
        before = await owner.fetchval(read)
        assert (await apply_parked_reports(owner, 200))[1] == 0
        assert await owner.fetchval(read) - before < 200
        await owner.execute("DELETE FROM spine.receipts WHERE attempt_id IS NULL")


async def test_receipts_that_were_parked_for_a_day_are_deleted(
    api: Api, client: NotificationsClient, org: Organisation, account: str
) -> None:
    """After a day without an attempt a receipt is deleted; one whose attempt is known by then is applied."""
    workspace_id = org.test.workspace_id
    id = client.send(to=SILENT, channels=["whatsapp"])
    async with sending(api):
        await client.until(id, "sent")
    async with owner_connection(api) as owner:
        await owner.execute("DELETE FROM spine.receipts WHERE attempt_id IS NULL")
        for name, age in (("old", timedelta(hours=25)), ("known", timedelta(hours=25)), ("fresh", timedelta(hours=23))):
            await owner.execute(PARK, workspace_id, name, 1, age)
        await owner.execute(
            "UPDATE spine.receipts SET provider_account_id = $2, provider_message_id = (SELECT provider_message_id FROM "
            "spine.attempts WHERE message_id = $1) WHERE id = 'rct_known1'",
            id,
            account,
        )
    async with sending(api):
        await client.until(id, "delivered")
    query = "SELECT array_agg(id ORDER BY id) FROM spine.receipts WHERE workspace_id = $1 AND id LIKE 'rct\\_%1'"
    assert await fetch_value(api, query, workspace_id) == ["rct_fresh1", "rct_known1"]


async def test_a_receipt_and_the_timer_at_the_same_time_take_turns(
    api: Api, client: NotificationsClient, account: str, provider: httpx.Client
) -> None:
    """20 receipts arrive as the wait ends: each is in time, or the fallback is sent; one `delivered` each (case 7)."""
    sent = [client.send(to=SILENT) for _ in range(20)]
    async with sending(api):
        attempts = [(await client.until(id, "sent"))["attempts"][0] for id in sent]

        def deliver(attempt: Any) -> int:
            return post_receipt(provider, account, report(attempt, "delivered")).status_code

        clock = asyncio.to_thread(client.advance, 601)
        codes = await asyncio.gather(clock, *(asyncio.to_thread(deliver, attempt) for attempt in attempts))
        assert set(codes[1:]) == {200}
        for id in sent:
            await client.until(id, "delivered")
    for id in sent:
        names = client.event_names(id)
        assert names.count("delivered") == 1
        assert names in (
            ["created", "sent", "delivered"],
            ["created", "sent", "sent", "delivered"],
            ["created", "sent", "delivered", "sent"],
        )
