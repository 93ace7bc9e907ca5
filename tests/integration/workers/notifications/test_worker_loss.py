"""Workers that die, and many workers on one queue: every message ends, and no call is counted twice."""

from typing import Any

from tests.api import Api, Organisation
from tests.database import count_rows
from tests.message_engine import DiesAfterCalls, NotificationsClient, end_leases, fetch_value, sending, until
from workers.notifications.dispatch import MessageDispatcher
from workers.notifications.receipts import ReceiptPipeline


async def test_the_calls_of_a_dead_worker_are_repeated_but_counted_once(
    api: Api, client: NotificationsClient, org: Organisation
) -> None:
    """One message, one attempt, one of each event: the sandbox counts a repeated attempt once (N-01)."""
    sent = [client.send(to="+910000000000") for _ in range(5)]
    async with sending(api, (DiesAfterCalls,)):

        async def called() -> bool:
            return await count_rows(api, "sandbox_calls", org.test) == 5

        await until(called, "the calls were not made")
    assert [client.message(id)["status"] for id in sent] == ["sending"] * 5
    await end_leases(api, org.test)
    async with sending(api):
        for id in sent:
            assert len((await client.until(id, "delivered"))["attempts"]) == 1
    assert await count_rows(api, "sandbox_calls", org.test) == 5
    for id in sent:
        assert client.event_names(id) == ["created", "sent", "delivered"]


async def test_a_killed_worker_loses_no_receipt(api: Api, client: NotificationsClient, org: Organisation) -> None:
    """Sandbox receipts are rows. A worker that does not send them leaves them to the next worker."""
    id = client.send(to="+910000000000")
    async with sending(api, (MessageDispatcher,)):
        await client.until(id, "sent")
    await end_leases(api, org.test)
    async with sending(api, (ReceiptPipeline,)):
        await client.until(id, "delivered")


async def test_many_workers_make_one_call_each(api: Api, client: NotificationsClient, org: Organisation) -> None:
    """Three workers on one queue: no attempt is made twice, and every message ends (failure case 5)."""
    body = {"to": "+910000000030", "template": "reminder", "vars": {"time": "5"}}
    made = client.post("/notifications/v1/messages/batch", {"messages": [body] * 150})["data"]
    async with sending(api), sending(api), sending(api):

        async def ended() -> Any:
            query = "SELECT count(*) = 150 FROM spine.messages WHERE workspace_id = $1 AND status = 'delivered'"
            return await fetch_value(api, query, org.test.workspace_id)

        await until(ended, "not all messages ended", 40)
    per_message = (
        "SELECT max(n) FROM (SELECT count(*) AS n FROM spine.attempts WHERE workspace_id = $1 GROUP BY message_id) c"
    )
    assert await fetch_value(api, per_message, org.test.workspace_id) == 1
    assert await count_rows(api, "sandbox_calls", org.test) == 150
    assert await count_rows(api, "sends_open", org.test) == 0
    assert len(made) == 150
