"""Live providers: only a signed receipt makes a message `delivered`, and a call of unknown outcome is not repeated."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest
from aiohttp import web

from tests.api import Api, Organisation
from tests.mail_server import Mailbox, open_mailbox
from tests.message_engine import SECRET, DiesAfterCalls, NotificationsClient, end_leases, post_receipt, sending, until


@pytest.fixture
async def http_provider() -> AsyncIterator[tuple[list[Any], int]]:
    """A provider that accepts every POST and returns an id: the received bodies, and its port."""
    calls: list[Any] = []

    async def handle(request: web.Request) -> web.Response:
        calls.append(orjson.loads(await request.read()))
        return web.json_response({"id": f"m{len(calls)}"}, status=202)

    app = web.Application()
    app.router.add_post("/", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield calls, runner.addresses[0][1]
    await runner.cleanup()


@pytest.fixture
async def mailbox() -> AsyncIterator[Mailbox]:
    """A mail server."""
    async with open_mailbox() as mailbox:
        yield mailbox


async def test_a_message_is_sent_over_http_and_delivered_by_its_receipt(
    api: Api, live: NotificationsClient, http_provider: tuple[list[Any], int], provider: httpx.Client
) -> None:
    """A response 202 makes a message `sent` and no more; a signed receipt makes it `delivered`, once (N-06, N-07)."""
    calls, port = http_provider
    credentials = {"url": f"http://127.0.0.1:{port}/", "secret": SECRET}
    account = live.post(
        "/notifications/v1/provider_accounts", {"channel": "sms", "kind": "http", "credentials": credentials}
    )
    id = live.send(to="+919876543210", channels=["sms"])
    async with sending(api):
        attempt = (await live.until(id, "sent"))["attempts"][0]
        assert (attempt["provider"], attempt["provider_message_id"]) == ("http", "m1")
        assert [(call["attempt_id"], call["to"], call["content"]["text"], call["env"]) for call in calls] == [
            (attempt["id"], "+919876543210", "At 5", "live")
        ]
        body = {"attempt_id": attempt["id"], "id": "m1", "status": "delivered", "timestamp": "2026-11-02T10:00:00Z"}
        for _ in range(2):
            assert post_receipt(provider, account["id"], body).status_code == 200
    assert live.message(id)["receipt"]["delivered_at"] is not None
    assert live.event_names(id) == ["created", "sent", "delivered"]


async def test_mail_is_sent_and_never_delivered(api: Api, live: NotificationsClient, mailbox: Mailbox) -> None:
    """SMTP has no receipts: the message ends as `sent`, and its receipt says that none is supported (N-07, X10)."""
    live.post("/notifications/v1/provider_accounts", mailbox.account)
    id = live.send(to="meera@example.com")
    async with sending(api):
        found = await live.until(id, "sent")

        async def ended() -> Any:
            return (await asyncio.to_thread(live.message, id))["ended_at"]

        await until(ended, "the message never ended")
    assert found["receipt"] == {"supported": False, "delivered_at": None, "read_at": None}
    assert [envelope.rcpt_tos for envelope in mailbox.mails] == [["meera@example.com"]]
    assert b"See you at 5" in mailbox.mails[0].content
    assert live.event_names(id) == ["created", "sent"]


async def test_a_mail_of_a_dead_worker_is_not_sent_again(
    api: Api, live: NotificationsClient, org: Organisation, mailbox: Mailbox
) -> None:
    """It is not known whether the mail server took the mail, so it is not sent again: at most one mail (N-01)."""
    live.post("/notifications/v1/provider_accounts", mailbox.account)
    live.policy(("email", "sent", 1), deadline_s=600)
    id = live.send(to="meera@example.com")
    async with sending(api, (DiesAfterCalls,)):

        async def called() -> Any:
            return len(mailbox.mails) == 1

        await until(called, "the mail was not sent")
    await end_leases(api, org.live)
    async with sending(api):
        found = await live.until(id, "failed")
    assert [(attempt["outcome"], attempt["provider_code"]) for attempt in found["attempts"]] == [
        ("unknown", "worker_lost")
    ]
    assert [reason["reason"] for reason in found["reasons"]] == ["outcome_unknown"]
    assert len(mailbox.mails) == 1
