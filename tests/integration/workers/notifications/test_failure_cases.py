"""Failure cases of the notification rules that no other module names: 10, 14, 28 and 30."""

import asyncio
from collections import defaultdict
from typing import Any

import httpx
import orjson

from tests.api import Api
from tests.message_engine import SECRET, NotificationsClient, fetch_value, post_receipt, sending, until
from tests.receiver import Receiver, ScriptedResponse
from workers.notifications.dispatch import MessageDispatcher
from workers.notifications.receipts import ReceiptPipeline
from workers.webhooks.dispatch import Dispatcher

ACCOUNTS = "/notifications/v1/provider_accounts"
NOWHERE = "redis://127.0.0.1:1/0"
DELIVERED, SILENT, REFUSED = "+910000000000", "+910000000200", "+910000000330"


async def test_when_all_channels_are_used_up_one_event_tells_every_reason(
    api: Api, client: NotificationsClient
) -> None:
    """`message.failed` comes once, after the last channel, with the reason of each attempt (failure case 10)."""
    id = client.send(to=REFUSED)
    async with sending(api):
        found = await client.until(id, "failed")
    assert [(attempt["channel"], attempt["class"]) for attempt in found["attempts"]] == [
        ("whatsapp", "recipient"),
        ("sms", "recipient"),
    ]
    assert client.event_names(id) == ["created", "failed"]
    (failed,) = client.events("message.failed")
    assert [(reason["channel"], reason["reason"]) for reason in failed["data"]["reasons"]] == [
        ("whatsapp", "recipient"),
        ("sms", "recipient"),
    ]


async def test_without_redis_messages_are_sent_and_breakers_hold(api: Api, client: NotificationsClient) -> None:
    """Redis is away for good: an outage opens the breaker, traffic moves, and its opening is told of once (failure case 14)."""
    (first,) = [one for one in client.get(ACCOUNTS)["data"] if one["channel"] == "sms"]
    client.post(ACCOUNTS, {"channel": "sms", "kind": "sandbox", "priority": 200})
    client.post(f"{ACCOUNTS}/{first['id']}", {"sandbox": {"outage": True}}, status=200, method="PATCH")
    async with sending(api, redis_url=NOWHERE, sweep_s=0.2), sending(api, redis_url=NOWHERE, sweep_s=0.2):
        sent = [client.send(to=DELIVERED, channels=["sms"]) for _ in range(12)]
        for id in sent:
            await client.until(id, "delivered", timeout_s=40)

        async def opened() -> Any:
            return await asyncio.to_thread(client.events, "provider.circuit_opened")

        told = await until(opened, "the opening was not told of")
    assert [event["data"]["id"] for event in told] == [first["id"]]


async def test_receipts_are_ordered_by_their_arrival_and_rank(
    api: Api, client: NotificationsClient, provider: httpx.Client
) -> None:
    """What a provider calls the time of a receipt is kept and decides nothing: zones are missing, clocks differ (case 28)."""
    client.policy(("whatsapp", "delivered", 600), deadline_s=700)
    body = {"channel": "whatsapp", "kind": "sandbox", "priority": 1, "credentials": {"secret": SECRET}}
    account = client.post(ACCOUNTS, body)["id"]
    id = client.send(to=SILENT, channels=["whatsapp"])
    async with sending(api):
        (attempt,) = (await client.until(id, "sent"))["attempts"]
        for status, timestamp in (
            ("delivered", "2099-01-01 00:00:00"),
            ("read", "1999-12-31 23:59"),
            ("delivered", "2611020930"),
        ):
            receipt = {"attempt_id": attempt["id"], "id": attempt["provider_message_id"], "status": status}
            posted = await asyncio.to_thread(post_receipt, provider, account, receipt | {"timestamp": timestamp})
            assert posted.status_code == 200
        await client.until(id, "read")
    assert client.event_names(id) == ["created", "sent", "delivered"]
    kept = "SELECT array_agg(reported_at ORDER BY received_at) FROM spine.receipts WHERE provider_account_id = $1"
    assert await fetch_value(api, kept, account) == ["2099-01-01 00:00:00", "1999-12-31 23:59", "2611020930"]


async def test_a_subscriber_that_is_down_blocks_no_send(api: Api, client: NotificationsClient) -> None:
    """Messages are delivered meanwhile; after an hour the subscriber has every event, in sequence by its number (case 30)."""
    async with Receiver() as receiver:
        receiver.always("/", ScriptedResponse(503))
        client.post("/v1/webhook_endpoints", {"url": receiver.url(), "events": ["message.*"]})
        pipelines = (MessageDispatcher, ReceiptPipeline, Dispatcher)
        async with sending(api, pipelines, sweep_s=0.2):
            sent = [client.send(to=DELIVERED, channels=["sms"]) for _ in range(5)]
            for id in sent:
                await client.until(id, "delivered")
            await receiver.until(lambda: receiver.count["/"] >= 15)
            receiver.always("/", ScriptedResponse(200))
            before = len(receiver.calls)
            await asyncio.to_thread(client.advance, 3600)
            await receiver.until(lambda: len({call.event_id for call in receiver.calls[before:]}) >= 15)
    told: dict[str, dict[int, str]] = defaultdict(dict)
    for call in receiver.calls[before:]:
        event = orjson.loads(call.body)
        told[event["data"]["message_id"]][event["sequence"]] = event["type"]
    assert told == {id: {1: "message.created", 2: "message.sent", 3: "message.delivered"} for id in sent}
