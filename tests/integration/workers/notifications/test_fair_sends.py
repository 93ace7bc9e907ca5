"""Messages of many workspaces and accounts on one worker: nobody's slow or many sends hold those of others."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web

from spine.kernel import ids
from tests.api import Api, Organisation
from tests.database import count_rows, owner_connection
from tests.delivery_engine import Engine
from tests.message_engine import (
    SECRET,
    NotificationsClient,
    end_leases,
    fetch_value,
    notifications_client,
    sending,
    until,
)
from workers.notifications.calls import PreparedCall
from workers.notifications.dispatch import MessageDispatcher
from workers.notifications.limits import SendLimits
from workers.notifications.receipts import ReceiptPipeline
from workers.notifications.turns import Turns
from workers.pipeline import WorkerContext

SMS = {"channels": ["sms"], "template": "reminder", "vars": {"time": "5"}}
SLOW = {"outage": "slow_ms", "slow_ms": 10_000}
WHATSAPP_DELIVERED, SMS_DELIVERED = "+910000000000", "+910000000000"
STARTED = """
    SELECT a.message_id, a.started_at, a.outcome, m.created_at FROM spine.attempts a JOIN spine.messages m
        ON m.workspace_id = a.workspace_id AND m.id = a.message_id
     WHERE a.workspace_id = $1 AND a.channel = $2 ORDER BY a.started_at, a.message_id
"""


def send_many(client: NotificationsClient, count: int, **body: Any) -> list[str]:
    """Send messages in batches. Returns their ids in the order of acceptance."""
    made: list[str] = []
    for start in range(0, count, 100):
        messages = [SMS | body] * min(100, count - start)
        rows = client.post("/notifications/v1/messages/batch", {"messages": messages})["data"]
        made += [row["id"] for row in rows]
    return made


def account_of(client: NotificationsClient, channel: str) -> str:
    """The path of the workspace's account of a channel."""
    rows = client.get("/notifications/v1/provider_accounts")["data"]
    id = next(row["id"] for row in rows if row["channel"] == channel)
    return f"/notifications/v1/provider_accounts/{id}"


async def attempts(api: Api, workspace_id: str, channel: str = "sms") -> list[Any]:
    """The attempts of a workspace on a channel, in the order of their start."""
    async with owner_connection(api) as owner:
        return list(await owner.fetch(STARTED, workspace_id, channel))


@asynccontextmanager
async def accepting_provider() -> AsyncIterator[int]:
    """A provider that accepts every call at once. Yields its port."""

    async def handle(request: web.Request) -> web.Response:
        return web.json_response({"id": ids.mint("msg")}, status=202)

    app = web.Application()
    app.router.add_post("/", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


async def test_slow_sends_of_a_test_workspace_hold_nobody_else(
    api: Api, client: NotificationsClient, live: NotificationsClient, org: Organisation
) -> None:
    """Beside 400 sandbox sends of 10 s each, 60 live messages are sent before any of the 400 has ended.

    The test workspace holds no more than its share of the calls: a ninth, and what one claim took before.
    """
    client.post(account_of(client, "sms"), {"sandbox": SLOW}, status=200, method="PATCH")
    send_many(client, 400, to=SMS_DELIVERED)
    async with accepting_provider() as port, sending(api, drain_s=0):
        await until(lambda: attempts(api, org.test.workspace_id), "no send of the test workspace was started")
        credentials = {"url": f"http://127.0.0.1:{port}/", "secret": SECRET}
        live.post("/notifications/v1/provider_accounts", {"channel": "sms", "kind": "http", "credentials": credentials})
        send_many(live, 60, to="+919876543210")

        async def all_sent() -> bool:
            return (
                len([row for row in await attempts(api, org.live.workspace_id) if row["outcome"] == "accepted"]) == 60
            )

        await until(all_sent, "the live messages were not sent")
        slow = await attempts(api, org.test.workspace_id)
    assert [row["outcome"] for row in slow if row["outcome"] is not None] == []
    assert 1 <= len(slow) <= 256 // 9 + 32


async def test_a_slow_account_holds_only_its_own(api: Api, client: NotificationsClient, org: Organisation) -> None:
    """100 messages wait for an account that hangs, without an attempt; those of the workspace's other account are sent."""
    client.post(account_of(client, "sms"), {"sandbox": SLOW}, status=200, method="PATCH")
    slow = send_many(client, 100, to=SMS_DELIVERED)
    fast = send_many(client, 30, to=WHATSAPP_DELIVERED, channels=["whatsapp"])
    async with sending(api, drain_s=0, max_sends_per_account=6):

        async def delivered() -> bool:
            rows = await attempts(api, org.test.workspace_id, "whatsapp")
            return len([row for row in rows if row["outcome"] == "accepted"]) == len(fast)

        await until(delivered, "the messages of the other account were not sent")
        started = await attempts(api, org.test.workspace_id)
        waiting = "SELECT count(*) FROM spine.sends_open WHERE workspace_id = $1 AND waits_for IS NOT NULL"
        assert await fetch_value(api, waiting, org.test.workspace_id) == len(slow) - len(started)
    assert [row["outcome"] for row in started] == [None] * 6
    untouched = set(slow) - {row["message_id"] for row in started}
    timelines = [[entry["kind"] for entry in client.audit(id)] for id in sorted(untouched)[:5]]
    assert timelines == [["message.created"]] * 5
    assert client.message(min(untouched))["status"] == "queued"


class SlowToDecide(MessageDispatcher):
    """A worker whose decisions on the messages of one workspace last until `go_on` is set."""

    go_on: asyncio.Event
    workspace_id: str

    def __init__(self, context: WorkerContext) -> None:
        super().__init__(context)
        for decisions in (self.claimer._decisions, self.claimer._new_decisions):
            self._delay(decisions)

    def _delay(self, decisions: Any) -> None:
        decide = decisions.decide

        async def decide_late(claimed: Mapping[tuple[str, str], Any], lease_ends_s: float) -> None:
            if self.workspace_id in {workspace_id for workspace_id, _ in claimed}:
                await self.go_on.wait()
            await decide(claimed, lease_ends_s)

        decisions.decide = decide_late


async def test_a_long_decision_holds_no_other_workspace(
    api: Api, client: NotificationsClient, org: Organisation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a worker decides on what it has claimed, the next messages of another workspace are claimed and delivered."""
    monkeypatch.setattr(SlowToDecide, "go_on", asyncio.Event(), raising=False)
    monkeypatch.setattr(SlowToDecide, "workspace_id", org.test.workspace_id, raising=False)
    other = notifications_client(api.sign_up().test)
    claimed = "SELECT count(*) FROM spine.sends_open WHERE id = $1 AND leased_by IS NOT NULL"
    with other.http:
        other.template()
        held = client.send(to=SMS_DELIVERED, channels=["sms"])
        async with sending(api, (SlowToDecide, ReceiptPipeline)):
            await until(lambda: fetch_value(api, claimed, held), "the message was not claimed")
            for _ in range(3):
                await other.until(other.send(to=SMS_DELIVERED, channels=["sms"]), "delivered")
            behind = client.send(to=SMS_DELIVERED, channels=["sms"])
            await asyncio.sleep(0.3)
            assert [client.message(id)["attempts"] for id in (held, behind)] == [[], []]
            SlowToDecide.go_on.set()
            for id in (held, behind):
                await client.until(id, "delivered")


async def test_an_account_is_called_at_its_rate_in_the_order_of_acceptance(
    api: Api, client: NotificationsClient, org: Organisation
) -> None:
    """50 messages at 20 a second: in no second more than 20 calls and a tenth of a second's; none overtakes another."""
    client.post(account_of(client, "sms"), {"rate_per_s": 20}, status=200, method="PATCH")
    sent = send_many(client, 50, to=SMS_DELIVERED)
    async with sending(api):
        for id in sent:
            await client.until(id, "delivered", timeout_s=40)
    rows = await attempts(api, org.test.workspace_id)
    starts = [row["started_at"] for row in rows]
    assert len(starts) == 50
    for first in starts:
        assert sum(first <= start < first + timedelta(seconds=1) for start in starts) <= 20 * 1.1 + 1
    batches: dict[Any, set[str]] = {}
    for row in rows:
        batches.setdefault(row["started_at"], set()).add(row["message_id"])
    waits = [entry["detail"]["why"] for entry in client.audit(sent[-1]) if entry["kind"] == "attempt.waits"]
    assert waits == ["rate_per_s"]
    in_order = iter(sent)
    for batch in batches.values():
        assert {next(in_order) for _ in batch} == batch


async def test_the_rate_of_an_account_is_shared_by_all_workers(engine: Engine) -> None:
    """Eight workers claim at once: in no second more than the rate and a tenth of a second's, by the database's clock."""
    workspace_id, account_id = await waiting(engine.pool, rate_per_s=40, count=1000)
    claimed = 0
    until_s = time.monotonic() + 2.5

    async def work(name: str) -> None:
        turns = Turns(name, timedelta(seconds=30), SendLimits(256, 64))
        turns.note_waiting([account_id])
        nonlocal claimed
        while time.monotonic() < until_s:
            async with engine.pool.acquire() as connection:
                taken = len(await turns.claim(connection))
            claimed += taken

    await asyncio.gather(*(work(f"w{n}") for n in range(8)))
    assert claimed > 40
    leased = await engine.pool.fetch(
        "SELECT due_at FROM spine.sends_open WHERE workspace_id = $1 AND leased_by IS NOT NULL ORDER BY due_at",
        workspace_id,
    )
    starts = [row["due_at"] for row in leased]
    assert len(starts) == claimed
    for first in starts:
        assert sum(first <= start < first + timedelta(seconds=1) for start in starts) <= 40 * 1.1 + 3


async def waiting(pool: Any, *, rate_per_s: float, count: int) -> tuple[str, str]:
    """Make an account with a rate, for which this many messages wait. Returns the ids of its workspace and its own."""
    workspace_id, account_id = await queue(pool, "live", count, 1), ids.mint("prv")
    await pool.execute(
        "INSERT INTO spine.provider_accounts (workspace_id, id, env, name, channel, kind, priority, weight, rate_per_s) "
        "VALUES ($1, $2, 'live', 'one', 'sms', 'http', 1, 1, $3)",
        workspace_id,
        account_id,
        rate_per_s,
    )
    await pool.execute(
        "UPDATE spine.sends_open SET waits_for = $2, due_at = now() + interval '1 hour' WHERE workspace_id = $1",
        workspace_id,
        account_id,
    )
    return workspace_id, account_id


async def test_a_message_that_waits_for_an_account_ends_at_its_deadline(
    api: Api, client: NotificationsClient, org: Organisation
) -> None:
    """A message whose turn does not come before its deadline fails at the deadline, without an attempt."""
    client.post(account_of(client, "sms"), {"rate_per_s": 0.01}, status=200, method="PATCH")
    client.policy(("sms", "delivered", 60), deadline_s=600)
    first, second = (client.send(to=SMS_DELIVERED) for _ in range(2))
    async with sending(api):
        await client.until(first, "delivered")
        await asyncio.to_thread(client.advance, 601)
        found = await client.until(second, "failed")
    assert [reason["reason"] for reason in found["reasons"]] == ["deadline_exceeded"]
    assert found["attempts"] == []
    assert await count_rows(api, "sends_open", org.test) == 0


async def test_a_further_call_renews_the_lease(api: Api, client: NotificationsClient, org: Organisation) -> None:
    """The fallback that follows a call of 2 s has a whole lease before it: no other worker takes its message meanwhile."""
    client.policy(("whatsapp", "delivered", 60), ("sms", "delivered", 60))
    client.post(account_of(client, "whatsapp"), {"sandbox": SLOW | {"slow_ms": 2000}}, status=200, method="PATCH")
    client.post(account_of(client, "sms"), {"sandbox": SLOW}, status=200, method="PATCH")
    id = client.send(to="+910000000300")
    left = """
        SELECT extract(epoch FROM o.due_at - a.started_at)::float8 FROM spine.sends_open o
          JOIN spine.attempts a ON a.workspace_id = o.workspace_id AND a.message_id = o.id
         WHERE o.id = $1 AND a.channel = 'sms'
    """
    async with sending(api, drain_s=0):
        lease_s = await until(lambda: fetch_value(api, left, id), "the fallback was not started")
    assert lease_s >= 29.5


class StoodStill(MessageDispatcher):
    """A worker that stands still between its claim and its calls, until too little is left of its leases."""

    def __init__(self, context: WorkerContext) -> None:
        super().__init__(context)
        self.claimer._lease = timedelta(seconds=20)  # a call may take 21 s


async def test_no_call_is_made_under_a_lease_that_ends_too_soon(
    api: Api, client: NotificationsClient, org: Organisation
) -> None:
    """The attempt stays without outcome and is made by the next worker, once, under its own id (promise N-01)."""
    id = client.send(to=WHATSAPP_DELIVERED)
    async with sending(api, (StoodStill,)):
        await until(lambda: attempts(api, org.test.workspace_id, "whatsapp"), "the message was not claimed")
        await asyncio.sleep(0.2)
        assert await count_rows(api, "sandbox_calls", org.test) == 0
    (started,) = await attempts(api, org.test.workspace_id, "whatsapp")
    assert started["outcome"] is None
    await end_leases(api, org.test)
    async with sending(api):
        found = await client.until(id, "delivered")
    assert len(found["attempts"]) == 1
    assert [entry["kind"] for entry in client.audit(id)].count("attempt.repeated") == 1


class Claims:
    """Claims by turns of a worker whose calls end at once or never."""

    def __init__(self, pool: Any, *, slow: bool) -> None:
        self.pool = pool
        self.slow = slow
        self.limits = SendLimits(256, 64)
        self.turns = Turns("w", timedelta(seconds=30), self.limits)
        self.turns.backlog = True

    async def claim(self, env: Mapping[str, str]) -> list[str]:
        """Claim once. Returns the workspaces of the claimed rows."""
        async with self.pool.acquire() as connection:
            keys = await self.turns.claim(connection)
        if self.slow:
            for key in keys:
                self.limits.start(
                    PreparedCall(key, None, None, key[1], "prv", "http", env[key[0]] == "live", 0.0, None, 0)
                )
        return [key[0] for key in keys]


async def queue(pool: Any, env: str, count: int, age_s: float) -> str:
    """Make a workspace with this many messages that have been due for `age_s`. Returns its id."""
    workspace_id, organisation_id = ids.mint("wsp"), ids.mint("org")
    await pool.execute(
        "INSERT INTO spine.organisations (id, name, email) VALUES ($1, 'Test', 'a@example.com')", organisation_id
    )
    await pool.execute(
        "INSERT INTO spine.workspaces (workspace_id, organisation_id, env) VALUES ($1, $2, $3)",
        workspace_id,
        organisation_id,
        env,
    )
    await pool.execute(
        "INSERT INTO spine.sends_open (workspace_id, id, due_at) "
        "SELECT $1, 'msg_' || n, now() - make_interval(secs => $3) FROM generate_series(1, $2) n",
        workspace_id,
        count,
        age_s,
    )
    return workspace_id


@pytest.mark.parametrize("slow", [False, True])
async def test_each_of_many_workspaces_gets_its_turn(engine: Engine, slow: bool) -> None:
    """Behind 3,000 older messages of one workspace, 100 others are served by the first two claims; then it gets the calls."""
    flood = await queue(engine.pool, "live", 3000, 600)
    quiet = [await queue(engine.pool, "live", 1, 1) for _ in range(100)]
    claims = Claims(engine.pool, slow=slow)
    envs = dict.fromkeys([flood, *quiet], "live")
    claimed = [*await claims.claim(envs), *await claims.claim(envs)]
    assert set(quiet) <= set(claimed)
    assert claimed.count(flood) > 0
    assert (await claims.claim(envs)).count(flood) > 20
    if slow:
        assert claims.limits.free > 0


async def test_a_look_is_bounded_and_goes_on_where_the_last_one_ended(engine: Engine) -> None:
    """600 workspaces that only wait are visited 256 at a time; the one behind them is found by the third look."""
    await engine.pool.execute(
        "INSERT INTO spine.sends_open (workspace_id, id, due_at) "
        "SELECT 'wsp_00' || n, 'msg', now() + interval '1 hour' FROM generate_series(1, 600) n"
    )
    flood = await queue(engine.pool, "live", 300, 600)
    due = await queue(engine.pool, "live", 1, 300)
    newer = await queue(engine.pool, "live", 300, 1)
    claims = Claims(engine.pool, slow=True)
    envs = dict.fromkeys([flood, due, newer], "live")
    looks: list[set[str]] = []
    for _ in range(3):
        looks.append(set(await claims.claim(envs)))
        assert looks[-1] <= {flood, due, newer}
    assert [due in look for look in looks] == [False, False, True]


async def test_live_messages_are_claimed_before_test_ones(engine: Engine) -> None:
    """A test workspace gets no call of a claim while live workspaces may take them, however long it has waited."""
    test = await queue(engine.pool, "test", 3000, 600)
    live = [await queue(engine.pool, "live", 500, 1) for _ in range(8)]
    claims = Claims(engine.pool, slow=True)
    envs = dict.fromkeys(live, "live") | {test: "test"}
    first = [key for _ in range(3) for key in await claims.claim(envs)]
    assert first.count(test) == 0
    assert min(first.count(id) for id in live) >= 20
    assert (await Claims(engine.pool, slow=True).claim(envs)).count(test) <= 28


async def test_a_claim_reads_no_backlog(engine: Engine) -> None:
    """Beside 30,000 due messages of one workspace that holds its share, a claim reads no more than its bounds."""
    flood = await queue(engine.pool, "live", 30_000, 600)
    quiet = await queue(engine.pool, "live", 1, 1)
    claims = Claims(engine.pool, slow=True)
    for _ in range(300):
        claims.limits.start(PreparedCall((flood, "m"), None, None, "a", "prv", "http", True, 0.0, None, 0))
        if claims.limits.free <= 100:
            break
    async with engine.pool.acquire() as connection, connection.transaction():
        await connection.execute("ANALYZE spine.sends_open")
        read = (
            "SELECT seq_tup_read + idx_tup_fetch + idx_scan FROM pg_stat_xact_user_tables WHERE relname = 'sends_open'"
        )
        before = await connection.fetchval(read)
        keys = await claims.turns.claim(connection)
        assert await connection.fetchval(read) - before < 1500
    assert [key[0] for key in keys] == [quiet]
