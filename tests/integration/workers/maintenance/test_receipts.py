"""Accounts that are judged by their receipts: found by bounded samples, shown to callers, and given a smaller share."""

from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from policies.fallback_values import Policy, Step
from spine.kernel.database import open_pool
from spine.notifications.routing import routes_by_step
from tests.api import Api, Organisation
from tests.database import owner_connection
from tests.message_engine import NotificationsClient, notifications_client
from workers.maintenance.lease import Lease
from workers.maintenance.receipts import SAMPLES, ReceiptJudge
from workers.notifications.accounts import ACCOUNTS_LOAD

ACCOUNTS = "/notifications/v1/provider_accounts"
_FILL = """
    INSERT INTO spine.attempts (workspace_id, id, message_id, step, number, channel, provider, provider_account_id, receipts, state,
                                outcome, started_at, accepted_at, delivered_at)
    SELECT $1, 'att_' || spine.ulid_time(now() - $4::interval) || substr($2, 5, 10) || lpad(n::text, 6, '0'), $3, 0, $7 + n, 'sms', 'http',
           $2, true, 'accepted', 'accepted', now() - $4::interval, now() - $4::interval,
           CASE WHEN n <= $6 THEN now() - $4::interval + interval '20 seconds' END
      FROM generate_series(1, $5) n
"""


@pytest.fixture
async def workers(api: Api) -> AsyncIterator[Any]:
    """A pool of the worker role."""
    pool = await open_pool(api.database_url, "spine_worker", "tests", 2)
    try:
        yield pool
    finally:
        await pool.close()


@pytest.fixture
def client(org: Organisation) -> Any:
    """A live workspace with a template."""
    made = notifications_client(org.live)
    with made.http:
        made.template()
        yield made


class History:
    """Past attempts of accounts of one workspace."""

    def __init__(self, api: Api, workspace_id: str, message_id: str) -> None:
        self.api, self.workspace_id, self.message_id, self._numbers = api, workspace_id, message_id, 0

    async def add(self, account_id: str, minutes: int, accepted: int, delivered: int) -> None:
        """So many attempts were accepted that long ago, and so many of them delivered soon after."""
        ago = timedelta(minutes=minutes)
        async with owner_connection(self.api) as owner:
            await owner.execute(
                _FILL, self.workspace_id, account_id, self.message_id, ago, accepted, delivered, self._numbers
            )
        self._numbers += accepted


async def degraded(client: NotificationsClient) -> dict[str, bool]:
    """Which accounts are degraded, by their names."""
    return {one["name"]: one["breaker"]["degraded_until"] is not None for one in client.get(ACCOUNTS)["data"]}


async def test_an_account_without_deliveries_gets_a_smaller_share(
    api: Api, org: Organisation, client: NotificationsClient, workers: Any
) -> None:
    """Judged from 20 to 5 minutes ago against its own day; with all of them bad nothing is moved; messages of a minute do not count."""
    secret = "whsec_" + "A" * 32
    ids = {}
    for name in ("good", "bad", "usual"):
        body = {
            "channel": "sms",
            "kind": "http",
            "name": name,
            "credentials": {"url": "http://127.0.0.1:9/", "secret": secret},
        }
        ids[name] = client.post(ACCOUNTS, body)["id"]
    history = History(api, org.live.workspace_id, client.send(to="+919812345000", channels=["sms"]))
    judge = ReceiptJudge(Lease(workers, "maintenance", "test", 30))
    for id in ids.values():
        await history.add(id, 1, 50, 0)
    async with workers.acquire() as connection:
        await judge.judge(connection)
        assert await degraded(client) == {"good": False, "bad": False, "usual": False}
        for name, delivered in (("good", 49), ("bad", 20), ("usual", 20)):
            await history.add(ids[name], 10, 50, delivered)
        await history.add(ids["usual"], 300, 200, 80)
        await judge.judge(connection)
        assert await degraded(client) == {"good": False, "bad": True, "usual": False}
        rows = [dict(row) for row in await connection.fetch(ACCOUNTS_LOAD, [org.live.workspace_id])]
        plan = "\n".join(
            row[0] for row in await connection.fetch(f"EXPLAIN {SAMPLES}".replace("$1", "'w'").replace("$2", "5000"))
        )
    assert "Seq Scan on attempts" not in plan
    policy = Policy((Step("sms", "delivered", 60),), 600)
    first = Counter(routes_by_step(policy, rows, f"msg_{n}")[0][0].account_id for n in range(2000))
    assert first[ids["bad"]] < first[ids["good"]] / 3
    async with owner_connection(api) as owner:
        await owner.execute("UPDATE spine.provider_breakers SET degraded_until = NULL")
        await owner.execute(
            "UPDATE spine.attempts SET delivered_at = NULL WHERE id > 'att_' || spine.ulid_time(now() - interval '20 minutes')"
        )
    async with workers.acquire() as connection:
        await judge.judge(connection)
    assert not any((await degraded(client)).values())
