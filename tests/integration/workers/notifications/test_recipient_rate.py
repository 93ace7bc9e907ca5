"""The rate of an account to one person holds for all workers together, and holds nobody but that person."""

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

from spine.kernel import ids
from tests.api import Api, Organisation
from tests.database import count_rows, owner_connection
from tests.message_engine import NotificationsClient, sending, until
from workers.maintenance.history import RECIPIENT_PACES_DELETE

ONE, OTHER = "+910000000000", "+910000000001"
STARTED = """
    SELECT a.started_at, m.addresses->>'sms' AS number FROM spine.attempts a JOIN spine.messages m
        ON m.workspace_id = a.workspace_id AND m.id = a.message_id
     WHERE a.workspace_id = $1 AND a.channel = $2 ORDER BY a.started_at
"""


def limit(client: NotificationsClient, channel: str, interval_s: float, burst: int = 1) -> str:
    """Give the workspace's account of a channel a rate to one person. Returns the account's path."""
    rows = client.get("/notifications/v1/provider_accounts")["data"]
    path = f"/notifications/v1/provider_accounts/{next(row['id'] for row in rows if row['channel'] == channel)}"
    rate = {"interval_s": interval_s, "burst": burst}
    assert client.post(path, {"recipient_rate": rate}, status=200, method="PATCH")["recipient_rate"] == rate
    return path


async def starts(api: Api, workspace_id: str, channel: str = "sms") -> list[Any]:
    """When the attempts of a workspace on a channel started, and to which number."""
    async with owner_connection(api) as owner:
        return list(await owner.fetch(STARTED, workspace_id, channel))


async def test_several_workers_keep_the_rate_to_one_person(
    api: Api, client: NotificationsClient, org: Organisation
) -> None:
    """Three workers, 12 messages each to two persons: each gets two at once and then one each 0.3 s, by the database's clock."""
    limit(client, "sms", 0.3, burst=2)
    client.policy(("sms", "sent", 60))
    sent = [client.send(to=number, channels=["sms"]) for _ in range(12) for number in (ONE, OTHER)]
    async with sending(api), sending(api), sending(api):
        for id in sent:
            await client.until(id, "sent", "delivered", "read", timeout_s=40)
    rows = await starts(api, org.test.workspace_id)
    assert Counter(row["number"] for row in rows) == {ONE: 12, OTHER: 12}
    for number in (ONE, OTHER):
        times = [row["started_at"] for row in rows if row["number"] == number]
        for n, first in enumerate(times):
            for m, last in enumerate(times[n:], 1):
                assert m <= 2 + (last - first) / timedelta(seconds=0.3) + 1e-6
        assert times[-1] - times[0] < timedelta(seconds=10)


async def test_a_message_waits_for_its_turn_and_says_so(
    api: Api, client: NotificationsClient, org: Organisation
) -> None:
    """The second message to a person waits, with the reason and the time in its timeline; one to another person does not."""
    path = limit(client, "sms", 3600)
    client.policy(("sms", "delivered", 7200), deadline_s=50_000)
    first = client.send(to=ONE, channels=["sms"])
    async with sending(api):
        await client.until(first, "delivered")
        second, third = (client.send(to=number, channels=["sms"]) for number in (ONE, OTHER))
        await client.until(third, "delivered")

        async def waits() -> Any:
            entries = await asyncio.to_thread(client.audit, second)
            return [entry["detail"] for entry in entries if entry["kind"] == "attempt.waits"]

        (wait,) = await until(waits, "the second message does not wait")
        assert (wait["why"], wait["provider_account_id"]) == ("recipient_rate", path.rpartition("/")[2])
        assert client.message(second)["attempts"] == []
        await asyncio.to_thread(client.advance, 3601)
        await client.until(second, "delivered")
    assert len(await starts(api, org.test.workspace_id)) == 3


async def test_past_the_wait_of_its_step_the_next_channel_has_the_message(
    api: Api, client: NotificationsClient
) -> None:
    """A turn that comes later than the step waits is not waited for, no provider is blamed, and no turn is taken."""
    limit(client, "whatsapp", 3600)
    client.policy(("whatsapp", "delivered", 5), ("sms", "delivered", 60))
    async with sending(api):
        first = client.send(to=ONE)
        await client.until(first, "delivered")
        second = client.send(to=ONE)
        found = await client.until(second, "delivered")
    assert [attempt["channel"] for attempt in found["attempts"]] == ["sms"]
    assert [(reason["channel"], reason["reason"]) for reason in found["reasons"]] == [("whatsapp", "recipient_rate")]


async def test_a_row_that_another_worker_holds_is_not_waited_for(
    api: Api, client: NotificationsClient, org: Organisation
) -> None:
    """While a transaction holds one person's row, messages to others go; his own goes soon after its end."""
    limit(client, "sms", 0.1)
    client.policy(("sms", "delivered", 60))
    async with sending(api):
        await client.until(client.send(to=ONE, channels=["sms"]), "delivered")
        async with owner_connection(api) as owner, owner.transaction():
            held = await owner.execute(
                "SELECT FROM spine.recipient_paces WHERE workspace_id = $1 FOR UPDATE", org.test.workspace_id
            )
            assert held == "SELECT 1"
            blocked, other = (client.send(to=number, channels=["sms"]) for number in (ONE, OTHER))
            await client.until(other, "delivered")
            assert client.message(blocked)["attempts"] == []
        await client.until(blocked, "delivered")
    assert "attempt.waits" not in [entry["kind"] for entry in client.audit(blocked)]


async def test_paces_that_are_over_are_deleted(api: Api, client: NotificationsClient, org: Organisation) -> None:
    """A person who is held back keeps the row, one whose time has passed loses it, which changes nothing."""
    path = limit(client, "sms", 60)
    async with owner_connection(api) as owner:
        for recipient, used, queued in (("+1", -1, -1), ("+2", 60, -1), ("+3", -1, 60)):
            await owner.execute(
                "INSERT INTO spine.recipient_paces (workspace_id, account_id, recipient, used_until, queued_until) "
                "VALUES ($1, $2, $3, now() + make_interval(secs => $4), now() + make_interval(secs => $5))",
                org.test.workspace_id, path.rpartition("/")[2], recipient, float(used), float(queued),
            )  # fmt: skip
        await owner.execute(RECIPIENT_PACES_DELETE, 1000)
    assert await count_rows(api, "recipient_paces", org.test) == 2


def test_a_rate_to_one_person_is_checked(client: NotificationsClient) -> None:
    """What cannot be a rate is refused with the name of the field; null takes the rate away."""
    path = limit(client, "sms", 6)
    for rate, param in (
        ({"interval_s": 0}, "recipient_rate.interval_s"),
        ({"interval_s": 1, "burst": 0}, "recipient_rate.burst"),
    ):
        refused = client.post(path, {"recipient_rate": rate}, status=422, method="PATCH")
        assert [error["param"] for error in refused["errors"]] == [param]
    assert (
        client.post(path, {"recipient_rate": {"interval_s": 6}}, status=200, method="PATCH")["recipient_rate"]["burst"]
        == 1
    )
    assert client.post(path, {"recipient_rate": None}, status=200, method="PATCH")["recipient_rate"] is None
    created = {
        "channel": "sms",
        "kind": "sandbox",
        "name": f"n{ids.mint('prv')[-6:]}",
        "recipient_rate": {"interval_s": 6},
    }
    assert client.post("/notifications/v1/provider_accounts", created)["recipient_rate"] == {
        "interval_s": 6.0,
        "burst": 1,
    }
