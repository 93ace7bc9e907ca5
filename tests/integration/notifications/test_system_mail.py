"""System mail to a workspace's owner when an endpoint is disabled because its deliveries fail (promise 4)."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from tests.api import Api, Organisation
from tests.mail_server import open_mailbox
from tests.message_engine import NotificationsClient, notifications_client, sending, until
from tests.receiver import Receiver, ScriptedResponse
from workers.notifications.dispatch import MessageDispatcher
from workers.notifications.receipts import ReceiptPipeline
from workers.webhooks.dispatch import Dispatcher

SLUG = "webhook_endpoint_disabled"
SET_FAILING_SINCE = (
    "UPDATE spine.endpoint_health SET failing_since = now() - interval '5 days' WHERE endpoint_id = ANY ($1)"
)


@pytest.fixture
def workspace(org: Organisation) -> Iterator[NotificationsClient]:
    """A test workspace."""
    client = notifications_client(org.test)
    with client.http:
        yield client


@pytest.fixture
async def owner(api: Api) -> AsyncIterator[Any]:
    """A connection as the owner of the database."""
    connection = await asyncpg.connect(api.database_url)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def disable_failing_endpoints(
    api: Api, workspace: NotificationsClient, owner: Any, endpoints: int = 1
) -> AsyncIterator[list[str]]:
    """Let endpoints that have failed for five days fail once more. Yields their ids when they are disabled."""
    async with Receiver() as receiver:
        ids = []
        for n in range(endpoints):
            path = f"/{n}?token=of-the-receiver"
            receiver.always(path, ScriptedResponse(500))
            endpoint = workspace.post(
                "/v1/webhook_endpoints", {"url": receiver.url(path), "events": ["thing.happened"]}
            )
            ids.append(endpoint["id"])
        async with sending(api, (Dispatcher, MessageDispatcher, ReceiptPipeline), sweep_s=0.1):
            workspace.post("/v1/events", {"type": "thing.happened", "data": {}})
            recorded = "SELECT count(*) = $2 FROM spine.endpoint_health WHERE endpoint_id = ANY ($1)"
            await until(lambda: owner.fetchval(recorded, ids, endpoints), "the first failures were not recorded")
            await owner.execute(SET_FAILING_SINCE, ids)
            workspace.post("/v1/events", {"type": "thing.happened", "data": {}})
            disabled = (
                "SELECT count(*) = $2 FROM spine.webhook_endpoints WHERE id = ANY ($1) AND disabled_reason = 'failing'"
            )
            await until(lambda: owner.fetchval(disabled, ids, endpoints), "the endpoints were not disabled")
            yield ids


async def test_the_owner_gets_a_mail(api: Api, org: Organisation, owner: Any) -> None:
    """In a live workspace the owner gets a mail over the workspace's own account. It shows the URL without its query."""
    email = await owner.fetchval("SELECT email FROM spine.organisations WHERE id = $1", org.live.organisation_id)
    live = notifications_client(org.live)
    with live.http:
        async with open_mailbox() as mailbox:
            live.post("/notifications/v1/provider_accounts", mailbox.account)
            async with disable_failing_endpoints(api, live, owner) as ids:
                (message,) = live.get("/notifications/v1/messages")["data"]
                await live.until(message["id"], "sent")
    (mail,) = mailbox.mails
    assert mail.rcpt_tos == [email]
    assert f"/v1/webhook_endpoints/{ids[0]}/enable".encode() in mail.content
    assert b"of-the-receiver" not in mail.content


async def test_each_endpoint_is_mailed_once(api: Api, workspace: NotificationsClient, owner: Any) -> None:
    """One message per endpoint, all from one template. In a test workspace it goes to the sandbox and can be read."""
    async with disable_failing_endpoints(api, workspace, owner, endpoints=2) as ids:
        sent = workspace.get("/notifications/v1/messages")["data"]
        assert sorted(message["vars"]["endpoint_id"] for message in sent) == sorted(ids)
        for message in sent:
            assert message["to"] == {"email": "delivered@sandbox.test"}
            assert (message["template"], message["template_version"]) == (SLUG, 1)
            await workspace.until(message["id"], "delivered")
    created = workspace.events("message.created")
    assert [event["actor"] for event in created] == [{"type": "system", "id": "spine"}] * 2
    assert [event["data"]["slug"] for event in workspace.events("template.created")] == [SLUG]
    assert len(workspace.events("webhook_endpoint.disabled")) == 2


async def test_the_workspaces_own_template_is_used(api: Api, workspace: NotificationsClient, owner: Any) -> None:
    """If the workspace has a template with the mail's slug, that template is sent."""
    bodies = {"email": {"subject": "Trouble with {{ url }}", "text": "since {{ failing_since }}"}}
    own = workspace.template(slug=SLUG, bodies=bodies, required_vars=["url"])
    async with disable_failing_endpoints(api, workspace, owner):
        (message,) = workspace.get("/notifications/v1/messages")["data"]
    assert message["template_id"] == own["id"]


async def test_a_mail_that_cannot_be_sent_stops_nothing(
    api: Api, workspace: NotificationsClient, org: Organisation, owner: Any
) -> None:
    """Without an e-mail account there is no message; the results are still written and the endpoint is disabled."""
    await owner.execute("DELETE FROM spine.provider_accounts WHERE workspace_id = $1", org.test.workspace_id)
    async with disable_failing_endpoints(api, workspace, owner) as ids:
        held = "SELECT count(*) = 2 FROM spine.deliveries_open WHERE endpoint_id = ANY ($1) AND state = 'held'"
        await until(lambda: owner.fetchval(held, ids), "the open deliveries were not held")
    assert workspace.get("/notifications/v1/messages")["data"] == []
    assert workspace.events("template.created") == []
    assert len(workspace.events("webhook_endpoint.disabled")) == 1
