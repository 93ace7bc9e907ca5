"""Messages of Spine itself to a workspace's owner: an endpoint that was disabled for its failures (promise 4)."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from tests.api import Api, Organisation
from tests.mail_server import open_mailbox
from tests.message_engine import Post, post_of, sending, until
from tests.receiver import Fate, Receiver
from workers.notifications.receipts import ReceiptPipeline
from workers.notifications.send import MessageSender
from workers.webhooks.dispatch import Dispatcher

SLUG = "webhook_endpoint_disabled"
LONG_FAILING = "UPDATE spine.endpoint_health SET failing_since = now() - interval '5 days' WHERE endpoint_id = ANY ($1)"


@pytest.fixture
def post(org: Organisation) -> Iterator[Post]:
    """A test workspace."""
    made = post_of(org.test)
    with made.http:
        yield made


@pytest.fixture
async def owner(api: Api) -> AsyncIterator[Any]:
    """The database as its owner sees it."""
    connection = await asyncpg.connect(api.database_url)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def failing(api: Api, post: Post, owner: Any, endpoints: int = 1) -> AsyncIterator[list[str]]:
    """Endpoints that have failed for five days, and fail once more; answers their ids when they are disabled."""
    async with Receiver() as receiver:
        ids = []
        for n in range(endpoints):
            path = f"/{n}?token=of-the-receiver"
            receiver.always(path, Fate(500))
            made = post.post("/v1/webhook_endpoints", {"url": receiver.url(path), "events": ["thing.happened"]})
            ids.append(made["id"])
        async with sending(api, (Dispatcher, MessageSender, ReceiptPipeline), sweep_s=0.1):
            post.post("/v1/events", {"type": "thing.happened", "data": {}})
            known = "SELECT count(*) = $2 FROM spine.endpoint_health WHERE endpoint_id = ANY ($1)"
            await until(lambda: owner.fetchval(known, ids, endpoints), "the first failures were not noted")
            await owner.execute(LONG_FAILING, ids)
            post.post("/v1/events", {"type": "thing.happened", "data": {}})
            off = (
                "SELECT count(*) = $2 FROM spine.webhook_endpoints WHERE id = ANY ($1) AND disabled_reason = 'failing'"
            )
            await until(lambda: owner.fetchval(off, ids, endpoints), "the endpoints were not disabled")
            yield ids


async def test_the_owner_gets_a_mail(api: Api, org: Organisation, owner: Any) -> None:
    """In a live workspace whoever signed up gets a mail over the workspace's own account, without the URL's query."""
    email = await owner.fetchval("SELECT email FROM spine.organisations WHERE id = $1", org.live.organisation_id)
    live = post_of(org.live)
    with live.http:
        async with open_mailbox() as mailbox:
            live.post("/notifications/v1/provider_accounts", mailbox.account)
            async with failing(api, live, owner) as ids:
                (message,) = live.get("/notifications/v1/messages")["data"]
                await live.until(message["id"], "sent")
    (mail,) = mailbox.mails
    assert mail.rcpt_tos == [email]
    assert f"/v1/webhook_endpoints/{ids[0]}/enable".encode() in mail.content
    assert b"of-the-receiver" not in mail.content


async def test_the_owner_is_told_once_of_each_endpoint(api: Api, post: Post, owner: Any) -> None:
    """One message an endpoint, of one template; in a test workspace it goes to nobody, and is there to be seen."""
    async with failing(api, post, owner, endpoints=2) as ids:
        sent = post.get("/notifications/v1/messages")["data"]
        assert sorted(message["vars"]["endpoint_id"] for message in sent) == sorted(ids)
        for message in sent:
            assert message["to"] == {"email": "delivered@sandbox.test"}
            assert (message["template"], message["template_version"]) == (SLUG, 1)
            await post.until(message["id"], "delivered")
    created = post.events("message.created")
    assert [event["actor"] for event in created] == [{"type": "system", "id": "spine"}] * 2
    assert [event["data"]["slug"] for event in post.events("template.created")] == [SLUG]
    assert len(post.events("webhook_endpoint.disabled")) == 2


async def test_a_template_of_the_workspace_goes_first(api: Api, post: Post, owner: Any) -> None:
    """Where the workspace has a template with our slug, that one is sent."""
    bodies = {"email": {"subject": "Trouble with {{ url }}", "text": "since {{ failing_since }}"}}
    own = post.template(slug=SLUG, bodies=bodies, required_vars=["url"])
    async with failing(api, post, owner):
        (message,) = post.get("/notifications/v1/messages")["data"]
    assert message["template_id"] == own["id"]


async def test_an_owner_who_cannot_be_told_stops_nothing(api: Api, post: Post, org: Organisation, owner: Any) -> None:
    """Without an e-mail account there is no message; the results are written and the endpoint is disabled all the same."""
    await owner.execute("DELETE FROM spine.provider_accounts WHERE workspace_id = $1", org.test.workspace_id)
    async with failing(api, post, owner) as ids:
        held = "SELECT count(*) = 2 FROM spine.deliveries_open WHERE endpoint_id = ANY ($1) AND state = 'held'"
        await until(lambda: owner.fetchval(held, ids), "what waits was not held")
    assert post.get("/notifications/v1/messages")["data"] == []
    assert post.events("template.created") == []
    assert len(post.events("webhook_endpoint.disabled")) == 1
