"""A worker is killed after each statement between the claim of a message and its end, BEGIN and COMMIT too (N-01).

The receiver is a fake of Twilio, which takes a repeated call as another message and reports each delivery by itself.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import asyncpg
import pytest
from aiohttp import web
from asyncpg.pool import PoolConnectionProxy

from tests.api import Api, Organisation
from tests.integration.providers.vendor_harnesses import CONFIGS
from tests.message_engine import NotificationsClient, end_leases, fetch_value, sending, until
from tests.provider_fakes.twilio import FakeTwilio
from workers.notifications.claim import CLAIM
from workers.notifications.dispatch import MessageDispatcher

PHONE = "+919812345000"
_MAX_POINTS = 40


class Killer:
    """Lets n statements more succeed after a message was claimed, and none after them: the worker is dead from then on."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.claimed = self.dead = False
        self.at = ""
        self._loop = asyncio.get_running_loop()

    def _wrap(self, original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(connection: Any, query: str, *args: Any, **options: Any) -> Any:
            if asyncio.get_running_loop() is not self._loop:
                return await original(connection, query, *args, **options)  # the API runs in another thread
            if self.dead:
                raise asyncpg.InterfaceError("the worker is dead")
            found = await original(connection, query, *args, **options)
            self.claimed = self.claimed or (query == CLAIM and bool(found))
            self.n -= self.claimed
            if self.n < 0:
                self._die(query)
            return found

        return call

    def _die(self, query: str) -> None:
        self.dead, self.at = True, " ".join(query.split())[:60]
        raise asyncpg.InterfaceError("the worker was killed")

    @contextmanager
    def armed(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Watch the statements of this loop, BEGIN and COMMIT too, until the block ends."""
        with monkeypatch.context() as patch:
            for name in ("fetch", "fetchrow", "fetchval", "execute"):
                patch.setattr(PoolConnectionProxy, name, self._wrap(getattr(PoolConnectionProxy, name)))
            patch.setattr(asyncpg.Connection, "execute", self._wrap(asyncpg.Connection.execute))
            yield


class OneClaim(MessageDispatcher):
    """A worker without the claim beside the first one, whose statements would come between those of this one at random."""

    async def run(self) -> None:
        """Work until cancelled."""
        self.claimer.step_new = asyncio.Event().wait  # type: ignore[method-assign, assignment]  # waits for ever
        await super().run()


class ReportingTwilio(FakeTwilio):
    """Reports the delivery of each message at once."""

    async def _send(self, request: web.Request) -> web.StreamResponse:
        before = len(self.sent)
        answer = await super()._send(request)
        for sent in self.sent[before:]:
            self.reports.append(asyncio.create_task(self.report(sent, "delivered")))
        return answer

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve until the block ends."""
        self.reports: list[asyncio.Task[Any]] = []
        async with self.run():
            yield
            await asyncio.gather(*self.reports)


async def test_a_killed_worker_leaves_one_true_state(
    api: Api,
    live: NotificationsClient,
    org: Organisation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Wherever it dies, the person gets one message or none, and the message says which is so, or that it is not known."""
    service = ReportingTwilio()
    async with service.running():
        body = {"kind": "twilio", "channel": "sms", "credentials": service.credentials(), "config": CONFIGS["twilio"]}
        await asyncio.to_thread(live.post, "/notifications/v1/provider_accounts", body)
        live.policy(("sms", "delivered", 1), deadline_s=600)
        places: list[str] = []
        for n in range(_MAX_POINTS):
            killer = Killer(n)
            id = await asyncio.to_thread(live.send, to=PHONE)
            with killer.armed(monkeypatch):
                async with sending(api, (OneClaim,), drain_s=0):
                    await until(partial(_is_over, api, id, killer), "nothing happened")
            if not killer.dead:
                break
            places.append(killer.at)
            await end_leases(api, org.live)
            async with sending(api, (MessageDispatcher,)):
                message = await live.until(id, "delivered", "failed")
            await asyncio.gather(*service.reports)
            _check(live, service, message, killer.at)
        else:
            pytest.fail(f"the message never ended: {places}")
    assert any("messages_write" in place for place in places)
    assert any("COMMIT" in place for place in places)
    assert len(places) >= 8


async def _is_over(api: Api, id: str, killer: Killer) -> bool:
    if killer.dead:
        return True
    return bool(await fetch_value(api, "SELECT ended_at IS NOT NULL FROM spine.messages WHERE id = $1", id))


def _check(client: NotificationsClient, service: FakeTwilio, message: Any, place: str) -> None:
    """Called once and delivered; or never called, and failed as unknown. The timeline leads to the state."""
    names = client.event_names(message["id"])
    (attempt,) = message["attempts"]
    calls = [one.attempt_id for one in service.sent].count(attempt["id"])
    if calls:
        assert (calls, message["status"], names) == (1, "delivered", ["created", "sent", "delivered"]), place
    else:
        # It died between the commit of the attempt and the call: the next worker cannot know that there was none.
        reasons = [one["reason"] for one in message["reasons"]]
        assert (message["status"], names, reasons) == ("failed", ["created", "failed"], ["outcome_unknown"]), place
        assert attempt["provider_code"] == "worker_lost", place
    entries = client.audit(message["id"])
    assert [one["detail"]["attempt_id"] for one in entries if one["kind"] == "attempt.started"] == [attempt["id"]], (
        place
    )
    assert [one["detail"]["status"] for one in entries if "status" in one["detail"]][-1] == message["status"], place
    assert message["duplicate_possible"] is False, place
