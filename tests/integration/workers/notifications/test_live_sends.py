"""Live workspaces: a message goes out over HTTP and SMTP, its receipt comes back signed, and nothing is sent twice."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import httpx
import orjson
import pytest
from aiohttp import web

from spine.webhooks.signing import sign
from tests.api import Api, Organisation
from tests.mail_server import Mailbox, open_mailbox
from tests.message_engine import Post, post_of, sending, until
from workers.notifications.send import MessageSender

SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def live(org: Organisation) -> Iterator[Post]:
    """A live workspace with a template."""
    made = post_of(org.live)
    with made.http:
        made.template()
        yield made


@pytest.fixture
async def house() -> AsyncIterator[tuple[list[Any], int]]:
    """A message house that takes signed POSTs and answers ids."""
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
    async with open_mailbox() as open_account:
        yield open_account


async def test_a_message_goes_out_over_http_and_its_receipt_comes_back(
    api: Api, live: Post, house: tuple[list[Any], int]
) -> None:
    """Signed call out, 202 is `sent` and no more; a signed receipt makes it `delivered`, once (N-06, N-07)."""
    calls, port = house
    credentials = {"url": f"http://127.0.0.1:{port}/", "secret": SECRET}
    account = live.post(
        "/notifications/v1/provider_accounts", {"channel": "sms", "kind": "http", "credentials": credentials}
    )
    id = live.send(to="+919876543210", channels=["sms"])
    async with sending(api):
        attempt = (await live.until(id, "sent"))["attempts"][0]
        assert (attempt["provider"], attempt["provider_message_id"]) == ("http", "m1")
        assert [(one["attempt_id"], one["to"], one["content"]["text"], one["env"]) for one in calls] == [
            (attempt["id"], "+919876543210", "At 5", "live")
        ]
        raw = orjson.dumps(
            {"attempt_id": attempt["id"], "id": "m1", "status": "delivered", "timestamp": "2026-11-02T10:00:00Z"}
        )
        now_s = int(time.time())
        headers = {
            "webhook-id": "r1",
            "webhook-timestamp": str(now_s),
            "webhook-signature": sign("r1", now_s, raw, [SECRET]),
        }
        async with httpx.AsyncClient(base_url=api.url, trust_env=False) as provider:
            for _ in range(2):
                answer = await provider.post(f"/notifications/v1/inbound/{account['id']}", content=raw, headers=headers)
                assert answer.status_code == 200
    assert live.message(id)["receipt"]["delivered_at"] is not None
    names = [event["type"] for event in live.events("message.*")]
    assert names == ["message.created", "message.sent", "message.delivered"]


async def test_mail_is_sent_and_never_said_to_be_delivered(api: Api, live: Post, mailbox: Mailbox) -> None:
    """SMTP has no receipts: `sent` is the end, the answer says so, and nothing is faked (N-07, X10)."""
    live.post("/notifications/v1/provider_accounts", mailbox.account)
    id = live.send(to="meera@example.com")
    async with sending(api):
        found = await live.until(id, "sent")

        async def ended() -> Any:
            return (await asyncio.to_thread(live.message, id))["ended_at"]

        await until(ended, "it never ended")
    assert found["receipt"] == {"supported": False, "delivered_at": None, "read_at": None}
    assert [envelope.rcpt_tos for envelope in mailbox.mails] == [["meera@example.com"]]
    assert b"See you at 5" in mailbox.mails[0].content
    names = [event["type"] for event in live.events("message.*")]
    assert names == ["message.created", "message.sent"]


class DiesAfterTheCall(MessageSender):
    """A worker that is gone between its call and the record of it."""

    async def _record_step(self) -> None:
        await asyncio.Event().wait()

    async def drain(self, within_s: float) -> None:
        """No time for that."""


async def test_a_mail_whose_worker_died_is_not_sent_again(
    api: Api, live: Post, org: Organisation, mailbox: Mailbox
) -> None:
    """Whether a mail server took it is not known, so it is never sent again blindly: one mail at most (N-01)."""
    live.post("/notifications/v1/provider_accounts", mailbox.account)
    live.policy(("email", "sent", 1), deadline_s=600)
    id = live.send(to="meera@example.com")
    async with sending(api, (DiesAfterTheCall,)):

        async def called() -> Any:
            return len(mailbox.mails) == 1

        await until(called, "the mail was not sent")
    connection = await asyncpg.connect(api.database_url)
    try:
        await connection.execute(
            "UPDATE spine.sends_open SET due_at = now() WHERE workspace_id = $1", org.live.workspace_id
        )
    finally:
        await connection.close()
    async with sending(api):
        found = await live.until(id, "failed")
    assert [(one["outcome"], one["provider_code"]) for one in found["attempts"]] == [("unknown", "worker_lost")]
    assert [reason["reason"] for reason in found["reasons"]] == ["outcome_unknown"]
    assert len(mailbox.mails) == 1
