"""Quotas of messages: never overshot, told of once, given back where nothing was sent (N-10, N-14)."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from policies.quota_periods import period_end
from products.catalogue import JOBS
from spine.kernel.jobs import Job
from spine.kernel.unit_of_work import UnitOfWork
from spine.notifications.notices import Notice, SentNotice, send_notice
from tests.api import Account, Api, Organisation
from tests.database import owner_connection
from tests.job_engine import job_runner
from tests.message_engine import NotificationsClient, fetch_value, sending

QUOTA = "/notifications/v1/quotas/messages"
OK, SILENT_THEN_OK, NOBODY = "+910000000000", "+910000000200", "+910000000330"
"""Numbers of the sandbox: delivered on the first channel; silence on the first one, delivered on the second; rejected by both."""


def put_quota(client: NotificationsClient, limit: int, period: str = "day") -> Any:
    """Set the quota."""
    return client.post(QUOTA, {"limit": limit, "period": period}, status=200, method="PUT")


def used(client: NotificationsClient) -> int:
    """How many are used."""
    count: int = client.get(QUOTA)["used"]
    return count


async def crossed(api: Api, client: NotificationsClient) -> list[tuple[int, int]]:
    """Run the due jobs. Returns the threshold and the count of each `quota.threshold`, lowest first."""
    async with job_runner(api) as runner:
        await runner.run_due()
    told = await asyncio.to_thread(client.events, "quota.threshold")
    return sorted((event["data"]["threshold"], event["data"]["used"]) for event in told)


async def send_many(account: Account, count: int) -> list[int]:
    """Send as many messages at once. Returns the statuses."""
    async with account.async_client() as http:
        body = {"to": OK, "template": "reminder", "vars": {"time": "5"}}
        answers = await asyncio.gather(*(http.post("/notifications/v1/messages", json=body) for _ in range(count)))
    for answer in answers:
        if answer.status_code == 429:
            assert answer.json()["code"] == "quota_exceeded"
            assert 1 <= int(answer.headers["retry-after"]) <= 86_400
    return [answer.status_code for answer in answers]


async def test_racing_sends_never_overshoot(api: Api, org: Organisation, client: NotificationsClient) -> None:
    """Of 50 callers at once as many get a message as the quota has; 80 and 100 percent are told of once each."""
    put_quota(client, 20)
    statuses = await send_many(org.test, 50)
    assert (statuses.count(201), statuses.count(429)) == (20, 30)
    assert used(client) == 20
    assert await crossed(api, client) == [(80, 16), (100, 20)]
    assert await send_many(org.test, 3) == [429] * 3
    assert await crossed(api, client) == [(80, 16), (100, 20)]


def test_a_batch_fits_whole_or_not_at_all(client: NotificationsClient) -> None:
    """A batch that goes beyond the quota creates nothing, and may be sent again with its key when there is room."""
    put_quota(client, 3)
    client.send(to=OK)
    batch = {"messages": [{"to": OK, "template": "reminder", "vars": {"time": "5"}}] * 3}
    headers = {"Idempotency-Key": "the-batch"}
    refused = client.http.post("/notifications/v1/messages/batch", json=batch, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
    assert "3 messages a day" in refused.json()["detail"]
    assert used(client) == len(client.get("/notifications/v1/messages")["data"]) == 1
    put_quota(client, 4)
    assert client.http.post("/notifications/v1/messages/batch", json=batch, headers=headers).status_code == 201
    assert used(client) == 4


async def test_what_was_not_sent_is_given_back_and_fallback_steps_count(api: Api, client: NotificationsClient) -> None:
    """A failed and a cancelled message cost nothing; one that two providers accepted costs two."""
    put_quota(client, 100)
    client.policy(("whatsapp", "delivered", 1), ("sms", "delivered", 5))
    async with sending(api):
        twice, never = client.send(to=SILENT_THEN_OK, policy="quick"), client.send(to=NOBODY, policy="quick")
        later = client.send(to=OK, send_at=(datetime.now(UTC) + timedelta(days=1)).isoformat())
        assert used(client) == 3
        client.post(f"/notifications/v1/messages/{later}/cancel", {}, status=200)
        await client.until(never, "failed")
        found = await client.until(twice, "delivered")
    assert [one["outcome"] for one in found["attempts"]] == ["accepted", "accepted"]
    assert used(client) == 2


async def test_a_used_up_quota_allows_no_further_step(api: Api, client: NotificationsClient) -> None:
    """A message that was sent once takes no fallback step beyond the quota, and says why."""
    put_quota(client, 1)
    client.policy(("whatsapp", "delivered", 1), ("sms", "delivered", 5))
    async with sending(api):
        failed = await client.until(client.send(to=SILENT_THEN_OK, policy="quick"), "failed")
    assert [one["channel"] for one in failed["attempts"]] == ["whatsapp"]
    assert "quota_exceeded" in [reason["reason"] for reason in failed["reasons"]]
    assert used(client) == 1


async def test_a_new_period_begins_at_zero(api: Api, org: Organisation, client: NotificationsClient) -> None:
    """After the end of the period messages are accepted again, and its thresholds are told of again."""
    put_quota(client, 2)
    assert await send_many(org.test, 3) != [201] * 3
    assert await crossed(api, client) == [(80, 2), (100, 2)]
    await asyncio.to_thread(client.advance, 86_400)
    assert used(client) == 0
    client.send(to=OK)
    assert (used(client), client.get("/notifications/v1/quotas")["data"][0]["used"]) == (1, 1)
    client.send(to=OK)
    assert await crossed(api, client) == [(80, 2), (80, 2), (100, 2), (100, 2)]


async def test_another_limit_counts_from_now_on(api: Api, client: NotificationsClient) -> None:
    """A lower limit tells at once of what is crossed already; a higher one makes room; another period begins anew."""
    made = put_quota(client, 100)
    assert (made["used"], made["thresholds"], made["id"][:4]) == (0, [80, 100], "quo_")
    client.send(to=OK)
    lowered = put_quota(client, 1)
    assert (lowered["used"], lowered["version"]) == (1, 2)
    assert await crossed(api, client) == [(80, 1), (100, 1)]
    assert put_quota(client, 1) == lowered
    assert put_quota(client, 2)["used"] == 1
    client.send(to=OK)
    assert put_quota(client, 2, "month")["used"] == 0


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"limit": 0, "period": "day"}, "limit"),
        ({"limit": 5, "period": "week"}, "period"),
        ({"period": "day"}, "limit"),
    ],
)
def test_a_bad_quota_is_refused(client: NotificationsClient, body: dict[str, Any], param: str) -> None:
    """The field at fault is named."""
    assert client.post(QUOTA, body, status=422, method="PUT")["param"] == param


def test_without_a_quota_nothing_is_counted(client: NotificationsClient) -> None:
    """A workspace without a quota sends as it likes; there is no quota of another name."""
    client.send(to=OK)
    assert client.http.get(QUOTA).status_code == 404
    assert client.http.get("/notifications/v1/quotas/other").status_code == 404
    assert client.post("/notifications/v1/quotas/other", {"limit": 1, "period": "day"}, status=422, method="PUT")


async def test_products_are_counted_alike(api: Api, org: Organisation, client: NotificationsClient) -> None:
    """A product's message takes of the quota. When it is used up the product's own work is done all the same (N-14)."""
    put_quota(client, 1)
    contact_id = client.contact(phone=OK)
    sent: list[SentNotice] = []

    async def handler(unit: UnitOfWork, job: Job) -> None:
        notice = Notice("visit_planned", "Your visit", "See you at {{ time }}.", ("time",))
        sent.append(await send_notice(unit, notice, job.subject_id, {"time": "5"}))
        sent.append(await send_notice(unit, notice, job.subject_id, {"time": "6"}))

    put = "INSERT INTO spine.jobs (workspace_id, kind, subject_id, due_at) VALUES ($1, 'test.notice', $2, now())"
    await fetch_value(api, put, org.test.workspace_id, contact_id)
    async with job_runner(api, {**JOBS, "test.notice": handler}) as runner:
        await runner.run_due()
    assert [(one.message_id is not None, one.refused) for one in sent] == [(True, None), (False, "quota_exceeded")]
    assert used(client) == len(client.get("/notifications/v1/messages")["data"]) == 1


async def test_the_database_and_the_policy_agree_on_periods(api: Api) -> None:
    """`spine.quota_period_end` is `period_end`."""
    async with owner_connection(api) as owner, owner.transaction():
        for period in ("day", "month"):
            row = await owner.fetchrow("SELECT now() AS now, spine.quota_period_end($1) AS at", period)
            assert row is not None
            assert row["at"] == period_end(row["now"], period)


SPEND = "/notifications/v1/quotas/spend"


async def test_money_is_counted_and_capped(api: Api, client: NotificationsClient) -> None:
    """Each part of an SMS has its price; at the cap nothing is accepted, and what is queued takes no priced account."""
    accounts = {one["channel"]: one["id"] for one in client.get("/notifications/v1/provider_accounts")["data"]}
    path = f"/notifications/v1/provider_accounts/{accounts['sms']}"
    client.post(path, {"unit_cost_micros": 120_000}, status=200, method="PATCH")
    client.post(SPEND, {"limit": 300_000, "period": "day"}, status=200, method="PUT")
    client.template(slug="long", bodies={"sms": "न" * 71}, required_vars=[])
    body = {"to": OK, "template": "long", "channels": ["sms"], "vars": {}}
    queued = [client.send(**body) for _ in range(2)]
    async with sending(api):
        first, second = [await client.until(id, "delivered", "failed") for id in queued]
        assert [(one["units"], one["cost_micros"]) for one in first["attempts"]] == [(2, 240_000)]
        spent = client.get(SPEND)["used"]
        assert spent in {240_000, 480_000}  # the second call may have been in flight
        if second["status"] == "failed" or spent == 240_000:
            await client.until(client.send(**body), "delivered")
        refused = client.post("/notifications/v1/messages", body, status=429)
        assert (refused["code"], "money" in refused["detail"]) == ("quota_exceeded", True)
    assert {threshold for threshold, _ in await crossed(api, client)} == {80, 100}
    assert {event["data"]["name"] for event in client.events("quota.threshold")} == {"spend"}


async def test_a_priced_account_is_passed_over_when_the_money_is_spent(
    api: Api, org: Organisation, client: NotificationsClient
) -> None:
    """A message that was queued before takes the channel without a price; with none left it fails, and says so."""
    accounts = {one["channel"]: one["id"] for one in client.get("/notifications/v1/provider_accounts")["data"]}
    path = f"/notifications/v1/provider_accounts/{accounts['sms']}"
    client.post(path, {"unit_cost_micros": 120_000}, status=200, method="PATCH")
    both = client.send(to=OK, channels=["sms", "whatsapp"])
    only = client.send(to=OK, channels=["sms"])
    client.post(SPEND, {"limit": 1, "period": "day"}, status=200, method="PUT")
    spend = "UPDATE spine.quotas SET used = 1 WHERE name = 'spend' AND workspace_id = $1"
    await fetch_value(api, spend, org.test.workspace_id)
    async with sending(api):
        delivered = await client.until(both, "delivered")
        assert [one["channel"] for one in delivered["attempts"]] == ["whatsapp"]
        failed = await client.until(only, "failed")
    assert ([one["reason"] for one in failed["reasons"]], failed["attempts"]) == (["quota_exceeded"], [])
