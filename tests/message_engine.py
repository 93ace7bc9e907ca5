"""Messages under test: the API in a thread, the message pipelines in the test's loop, and a client for both."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any

import httpx
import orjson
from pydantic import SecretStr
from redis.exceptions import RedisError

from spine.kernel.settings import DatabaseSettings, EgressSettings, VaultSettings, WakeupSettings, WorkSettings
from spine.webhooks.signing import sign
from tests.api import Account, Api
from tests.database import owner_connection
from tests.delivery_engine import KEY
from workers.notifications.dispatch import MessageDispatcher
from workers.notifications.receipts import ReceiptPipeline
from workers.pipeline import PipelineFactory, WakeupStatus, run_forever
from workers.runtime import Runtime

SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
"""The signing secret of provider accounts in these tests."""
PIPELINES: tuple[PipelineFactory, ...] = (MessageDispatcher, ReceiptPipeline)
BODIES = {
    "whatsapp": "At {{ time }}",
    "sms": "At {{ time }}",
    "email": {"subject": "At {{ time }}", "text": "See you at {{ time }}", "html": "<b>{{ time }}</b>"},
}


@dataclass(frozen=True, slots=True)
class NotificationsClient:
    """The notification routes of one workspace."""

    http: httpx.Client

    def post(self, path: str, body: Any, *, status: int = 201, method: str = "POST") -> Any:
        """Make a request that must have this status. Returns the body of the response."""
        answer = self.http.request(method, path, json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def get(self, path: str) -> Any:
        """Read a path. The response must have status 200."""
        answer = self.http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def template(self, **more: Any) -> Any:
        """Create a template for every channel."""
        body = {"slug": "reminder", "bodies": BODIES, "required_vars": ["time"], "category": "marketing"} | more
        return self.post("/notifications/v1/templates", body)

    def policy(self, *steps: tuple[str, str, int], slug: str = "quick", deadline_s: int = 600, **more: Any) -> Any:
        """Write a channel policy of steps (channel, success, wait_s)."""
        rows = [{"channel": channel, "success": success, "wait_s": wait_s} for channel, success, wait_s in steps]
        body = {"steps": rows, "deadline_s": deadline_s, **more}
        return self.post(f"/notifications/v1/channel_policies/{slug}", body, status=200, method="PUT")

    def contact(self, phone: str | None = None, email: str | None = None) -> str:
        """Create a contact. Returns its id."""
        body = {"name": "Meera", "phone": phone, "email": email}
        return str(self.post("/crm/v1/contacts", {k: v for k, v in body.items() if v is not None})["id"])

    def send(self, **body: Any) -> str:
        """Send a message. Returns its id."""
        return str(
            self.post("/notifications/v1/messages", {"template": "reminder", "vars": {"time": "5"}} | body)["id"]
        )

    def message(self, id: str) -> Any:
        """Read a message."""
        return self.get(f"/notifications/v1/messages/{id}")

    def audit(self, id: str) -> list[Any]:
        """Read the timeline of a message."""
        found: list[Any] = self.get(f"/notifications/v1/messages/{id}/audit?limit=100")["data"]
        return found

    def events(self, *types: str) -> list[Any]:
        """Read the events of these types, oldest first."""
        query = "&".join(["limit=100", *(f"type={type}" for type in types)])
        found: list[Any] = self.get(f"/v1/events?{query}")["data"]
        return found

    def event_names(self, id: str) -> list[str]:
        """The names of a message's events by sequence, without `message.`. The sequence must have no gap."""
        mine = [event for event in self.events("message.*") if event["data"]["message_id"] == id]
        # The list is in the order of transactions, which is not always the order of sequences.
        mine.sort(key=lambda event: int(event["sequence"]))
        assert [event["sequence"] for event in mine] == list(range(1, len(mine) + 1))
        return [event["type"].partition(".")[2] for event in mine]

    def advance(self, seconds: float) -> None:
        """Advance the test clock. From a test's loop, call it in a thread: it waits for rows that a worker there may hold."""
        self.post("/v1/test_helpers/clock", {"advance_s": seconds}, status=200)

    async def until(self, id: str, *statuses: str, timeout_s: float = 20) -> Any:
        """Wait until a message has one of these statuses. Returns the message."""

        async def reached() -> Any:
            found = await asyncio.to_thread(self.message, id)
            return found if found["status"] in statuses else None

        return await until(reached, f"message {id} never became {statuses}", timeout_s)


def notifications_client(account: Account) -> NotificationsClient:
    """A client of this workspace, with its own HTTP client."""
    return NotificationsClient(account.client())


async def until(condition: Callable[[], Awaitable[Any]], error: str, timeout_s: float = 20) -> Any:
    """Wait until a condition returns a true value. Returns that value."""
    until_s = time.monotonic() + timeout_s
    while True:
        found = await condition()
        if found:
            return found
        assert time.monotonic() < until_s, error
        await asyncio.sleep(0.03)


async def fetch_value(api: Api, query: str, *values: Any) -> Any:
    """Run a query as the database's owner. Returns its first value."""
    async with owner_connection(api) as owner:
        return await owner.fetchval(query, *values)


async def end_leases(api: Api, account: Account) -> None:
    """Make every queue row of the workspace due now, as after the end of a dead worker's leases."""
    for table in ("sends_open", "sandbox_receipts"):
        await fetch_value(api, f"UPDATE spine.{table} SET due_at = now() WHERE workspace_id = $1", account.workspace_id)


def post_receipt(
    http: httpx.Client, account_id: str, body: dict[str, Any], *, secret: str = SECRET, at_s: float | None = None
) -> httpx.Response:
    """Post a signed callback as a provider does: without an API key."""
    raw, timestamp_s = orjson.dumps(body), int(at_s or time.time())
    headers = {
        "webhook-id": "cb_1",
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": sign("cb_1", timestamp_s, raw, [secret]),
        "content-type": "application/json",
    }
    return http.post(f"/notifications/v1/inbound/{account_id}", content=raw, headers=headers)


class DiesAfterCalls(MessageDispatcher):
    """A worker that dies between a call and the record of its result."""

    async def run(self) -> None:
        """Claim and call, but record nothing."""
        await run_forever("send claim", self.claimer.step)

    async def drain(self, timeout_s: float) -> None:
        """A killed worker does not drain."""


@asynccontextmanager
async def sending(
    api: Api, pipelines: Sequence[PipelineFactory] = PIPELINES, *, redis_url: str | None = None, **settings: Any
) -> AsyncIterator[Runtime]:
    """Run the message pipelines in this loop. They are woken every 30 ms, without Redis."""
    runtime = Runtime(
        database=DatabaseSettings(DATABASE_URL=api.database_url, database_pool_size=12),
        wakeup_settings=WakeupSettings(REDIS_URL=redis_url or api.redis_url),
        work=WorkSettings(**{"metrics_port": 0, "lease_s": 5, "drain_s": 5, **settings}),
        egress=EgressSettings(egress_allow=(IPv4Network("127.0.0.0/8"),)),
        vault=VaultSettings(encryption_key=SecretStr(KEY)),
        public_url=api.url,
        wakeup_status=WakeupStatus(),
        pipelines=pipelines,
    )
    await runtime.start()
    stopped = asyncio.Event()
    wakeups = asyncio.create_task(_wake(runtime, stopped))
    try:
        yield runtime
    finally:
        stopped.set()
        await wakeups
        await runtime.stop()


# Stopped by an event, not cancelled: before Python 3.12 `asyncio.wait_for`, which the Redis client uses, may lose a
# cancellation, and the task would open a connection again after the last one was closed.
async def _wake(runtime: Runtime, stopped: asyncio.Event) -> None:
    while not stopped.is_set():
        with contextlib.suppress(OSError, RedisError):
            await runtime.receive_job("send")
        await asyncio.sleep(0.03)
