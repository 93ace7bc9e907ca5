"""Circuit breakers that all workers share: one opening, one event, one probe; traffic goes another way (N-04, N-09)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from policies.breaker import Limits
from spine.kernel.wakeups import WakeupKind
from spine.notifications.provider_calls import ProviderCall, ProviderResult
from spine.notifications.rendering import Content
from tests.api import Api, Organisation
from tests.message_engine import NotificationsClient, fetch_value, sending, until
from workers.notifications.accounts import Accounts
from workers.notifications.breakers import BreakerReporter
from workers.notifications.calls import CallResult, PreparedCall
from workers.pipeline import WorkerContext

ACCOUNTS = "/notifications/v1/provider_accounts"
OK = "+910000000000"
QUICK: dict[str, Any] = {"breaker_open_s": 0.5, "breaker_recheck_s": 0.1}
"""Breakers that are tried again soon."""


def accounts(client: NotificationsClient, channel: str = "sms") -> list[Any]:
    """The accounts of a channel, the newest first."""
    return [one for one in client.get(ACCOUNTS)["data"] if one["channel"] == channel]


def outage(client: NotificationsClient, id: str, on: bool = True) -> None:  # as the field is
    """Let a sandbox account fail, or heal it."""
    client.post(f"{ACCOUNTS}/{id}", {"sandbox": {"outage": on}}, status=200, method="PATCH")


async def state(client: NotificationsClient, id: str, *wanted: str) -> Any:
    """Wait until the breaker of an account has one of these states. Returns it."""

    async def reached() -> Any:
        breaker = (await asyncio.to_thread(client.get, f"{ACCOUNTS}/{id}"))["breaker"]
        return breaker if breaker["state"] in wanted else None

    return await until(reached, f"the breaker of {id} never became {wanted}")


async def test_an_outage_opens_it_traffic_moves_and_it_heals(api: Api, client: NotificationsClient) -> None:
    """Of two accounts the failing one is passed over until its probes succeed; one opening and one closing are told of."""
    (first,) = accounts(client)
    second = client.post(ACCOUNTS, {"channel": "sms", "kind": "sandbox", "priority": 200})
    outage(client, first["id"])
    async with sending(api, **QUICK):
        sent = [client.send(to=OK, channels=["sms"]) for _ in range(6)]
        found = [await client.until(id, "delivered") for id in sent]
        assert {one["attempts"][-1]["provider_account_id"] for one in found} == {second["id"]}
        breaker = await state(client, first["id"], "open", "half_open")
        assert breaker["reason"] in {"connect_failures", "probe_failed"} or breaker["state"] == "half_open"
        outage(client, first["id"], on=False)

        async def healed() -> bool:
            message = await client.until(client.send(to=OK, channels=["sms"]), "delivered")
            return bool(message["attempts"][0]["provider_account_id"] == first["id"])

        await until(healed, "no message goes to the healed account")
        await until(healed, "the second probe")
        await until(healed, "the third probe")
        assert (await state(client, first["id"], "closed"))["opened_until"] is None
        told = await asyncio.to_thread(client.events, "provider.circuit_opened", "provider.circuit_closed")
    assert [event["type"] for event in told] == ["provider.circuit_opened", "provider.circuit_closed"]
    assert {event["data"]["id"] for event in told} == {first["id"]}
    assert told[0]["data"]["breaker"]["state"] == "open"


async def test_without_another_way_messages_are_parked(api: Api, client: NotificationsClient) -> None:
    """Messages of an account that is not called wait without an attempt, say why, and arrive when it is called again."""
    (account,) = accounts(client)
    path = f"{ACCOUNTS}/{account['id']}"
    forced = client.post(f"{path}/force_open", {"reason": "maintenance", "expires_in_s": 600}, status=200)
    assert (forced["breaker"]["state"], forced["breaker"]["reason"]) == ("forced_open", "maintenance")
    async with sending(api, **QUICK):
        id = client.send(to=OK, channels=["sms"])

        async def parked() -> bool:
            audit = await asyncio.to_thread(client.audit, id)
            return any(one["detail"].get("reason") == "circuit_open" for one in audit)

        await until(parked, "the timeline never tells of the breaker")
        assert client.message(id)["attempts"] == []
        released = client.post(f"{path}/release", {}, status=200)
        assert released["breaker"] == {"state": "closed", "opened_until": None, "reason": None, "degraded_until": None}
        await asyncio.to_thread(client.advance, 60)  # it looks again within a minute
        assert len((await client.until(id, "delivered"))["attempts"]) == 1
    told = client.events("provider.circuit_opened", "provider.circuit_closed")
    assert [event["data"]["breaker"]["state"] for event in told] == ["forced_open", "closed"]


async def test_an_order_ends_by_itself(api: Api, client: NotificationsClient) -> None:
    """An account that was forced closed is called though it fails; after the order its own breaker decides again."""
    (account,) = accounts(client)
    path = f"{ACCOUNTS}/{account['id']}"
    client.post(f"{path}/force_closed", {"reason": "we know", "expires_in_s": 60}, status=200)
    outage(client, account["id"])
    async with sending(api):
        for _ in range(2):
            failed = await client.until(client.send(to=OK, channels=["sms"]), "failed")
            assert [one["class"] for one in failed["attempts"]] == ["connect"] * 3
        assert client.get(path)["breaker"]["state"] == "forced_closed"
        await asyncio.to_thread(client.advance, 61)
        await state(client, account["id"], "closed")
        for _ in range(2):
            client.send(to=OK, channels=["sms"])
        await state(client, account["id"], "open")


def ended(account: Any, workspace_id: str, failure: str | None, generation: int = 0) -> CallResult:
    """A call that has ended, with this class."""
    call = ProviderCall("att_1", "msg_1", workspace_id, "sms", OK, Content("text"), {}, "test", 1, 60)
    key = workspace_id, "msg_1"
    prepared = PreparedCall(key, None, call, "att_1", account["id"], "sandbox", False, 0.0, None, generation)
    result = ProviderResult("accepted" if failure is None else "rejected", None, failure)  # type: ignore[arg-type]
    return CallResult(prepared, result, 0.01)


class _Idle:
    """A pipeline that does nothing."""

    def on_wakeup(self, kind: WakeupKind) -> None:
        """Sleep on."""

    async def run(self) -> None:
        """Wait until cancelled."""
        await asyncio.Event().wait()

    async def drain(self, timeout_s: float) -> None:
        """There is nothing to finish."""


@asynccontextmanager
async def worker_context(api: Api) -> AsyncIterator[WorkerContext]:
    """The resources of a worker that does nothing by itself."""
    made: asyncio.Future[WorkerContext] = asyncio.get_running_loop().create_future()

    def idle(context: WorkerContext) -> _Idle:
        made.set_result(context)
        return _Idle()

    async with sending(api, (idle,)):
        yield await asyncio.wait_for(made, 20)


async def test_refused_credentials_stop_it_until_they_change(
    api: Api, org: Organisation, client: NotificationsClient
) -> None:
    """A refusal of the account makes it misconfigured at once, without an end; other credentials close it (case 29)."""
    (account,) = accounts(client)
    path = f"{ACCOUNTS}/{account['id']}"
    async with worker_context(api) as context:
        reporter = BreakerReporter(context, Limits(), lambda: None)
        reporter.note(ended(account, org.test.workspace_id, "config"))
        await reporter.step()
    assert client.get(path)["breaker"] == {
        "state": "misconfigured",
        "opened_until": None,
        "reason": "config",
        "degraded_until": None,
    }
    renamed = client.post(path, {"name": "other"}, status=200, method="PATCH")
    assert renamed["breaker"]["state"] == "misconfigured"
    secret = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    changed = client.post(path, {"credentials": {"secret": secret}}, status=200, method="PATCH")
    assert changed["breaker"]["state"] == "closed"
    told = client.events("provider.circuit_opened", "provider.circuit_closed")
    assert [event["data"]["breaker"]["state"] for event in told] == ["misconfigured", "closed"]
    assert secret not in str(told)


async def test_many_reporters_tell_of_one_opening_and_get_one_probe(
    api: Api, org: Organisation, client: NotificationsClient
) -> None:
    """All see the failures at once: one event. When its time has come one of 50 gets the probe (cases 11 and 12)."""
    (account,) = accounts(client)
    workspace_id = org.test.workspace_id
    async with worker_context(api) as context:
        reporters = [BreakerReporter(context, Limits(), lambda: None) for _ in range(10)]
        for reporter in reporters:
            for _ in range(5):
                reporter.note(ended(account, workspace_id, "connect"))
        await asyncio.gather(*(reporter.step() for reporter in reporters))
        told = await asyncio.to_thread(client.events, "provider.circuit_opened")
        assert len(told) == 1
        await fetch_value(
            api, "UPDATE spine.provider_breakers SET opened_until = now() WHERE account_id = $1", account["id"]
        )

        async def probes() -> int:
            async with context.pool.acquire() as connection, connection.transaction():
                now = await connection.fetchval("SELECT clock_timestamp()")
                loaded = await Accounts.load(connection, [workspace_id], now, 5.0, timedelta(seconds=30))
                return int(account["id"] not in loaded.breakers.open_until)

        assert sum(await asyncio.gather(*(probes() for _ in range(50)))) == 1
        for reporter in reporters:  # calls from before the opening
            reporter.note(ended(account, workspace_id, None))
        await asyncio.gather(*(reporter.step() for reporter in reporters))
        assert sum(await asyncio.gather(*(probes() for _ in range(5)))) == 0
    assert client.get(f"{ACCOUNTS}/{account['id']}")["breaker"]["state"] == "half_open"


async def test_an_unused_probe_is_given_back(api: Api, org: Organisation, client: NotificationsClient) -> None:
    """A batch whose messages need another account leaves the probe to the next one."""
    (account,) = accounts(client)
    put = "INSERT INTO spine.provider_breakers (workspace_id, account_id, state, opened_until) VALUES ($1, $2, 'open', now())"
    await fetch_value(api, put, org.test.workspace_id, account["id"])
    async with worker_context(api) as context, context.pool.acquire() as connection, connection.transaction():
        for _ in range(2):
            now = await connection.fetchval("SELECT clock_timestamp()")
            loaded = await Accounts.load(connection, [org.test.workspace_id], now, 5.0, timedelta(seconds=30))
            assert account["id"] not in loaded.breakers.open_until
            await loaded.give_back_probes(connection)


async def test_reports_survive_an_absent_database(
    api: Api, org: Organisation, client: NotificationsClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report that fails is made again, and sending does not wait for it."""
    (account,) = accounts(client)
    async with worker_context(api) as context:
        reporter = BreakerReporter(context, Limits(), lambda: None)
        for _ in range(5):
            reporter.note(ended(account, org.test.workspace_id, "connect"))
        with monkeypatch.context() as broken:
            broken.setattr("workers.notifications.breakers.lock_breakers", _fail)
            with pytest.raises(ConnectionError):
                await reporter.step()
        await reporter.step()
    assert client.get(f"{ACCOUNTS}/{account['id']}")["breaker"]["state"] == "open"


async def _fail(*_: Any) -> Any:
    raise ConnectionError


@pytest.mark.parametrize(
    ("body", "param"),
    [({}, "reason"), ({"reason": ""}, "reason"), ({"reason": "x", "expires_in_s": 0}, "expires_in_s")],
)
def test_an_order_needs_its_reason(client: NotificationsClient, body: dict[str, Any], param: str) -> None:
    """The field at fault is named."""
    (account,) = accounts(client)
    assert client.post(f"{ACCOUNTS}/{account['id']}/force_open", body, status=422)["param"] == param
