"""Messages under test: the API in a thread, the send line in the test's loop, and the words to make them talk."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any

import httpx
from pydantic import SecretStr

from spine.kernel.settings import DatabaseSettings, EgressSettings, VaultSettings, WakeupSettings, WorkSettings
from tests.api import Account, Api
from tests.delivery_engine import KEY
from workers.notifications.receipts import ReceiptPipeline
from workers.notifications.send import MessageSender
from workers.pipeline import PipelineFactory, WakeupStatus
from workers.runtime import Runtime

PIPELINES: tuple[PipelineFactory, ...] = (MessageSender, ReceiptPipeline)
BODIES = {
    "whatsapp": "At {{ time }}",
    "sms": "At {{ time }}",
    "email": {"subject": "At {{ time }}", "text": "See you at {{ time }}", "html": "<b>{{ time }}</b>"},
}


@dataclass(frozen=True, slots=True)
class Post:
    """A workspace's view of messages."""

    http: httpx.Client

    def post(self, path: str, body: Any, *, status: int = 201, method: str = "POST") -> Any:
        """A call that must answer this status; answers its body."""
        answer = self.http.request(method, path, json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def get(self, path: str) -> Any:
        """A read that must succeed."""
        answer = self.http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def template(self, **more: Any) -> Any:
        """A template for every channel."""
        body = {"slug": "reminder", "bodies": BODIES, "required_vars": ["time"], "category": "marketing"} | more
        return self.post("/notifications/v1/templates", body)

    def policy(self, *steps: tuple[str, str, int], slug: str = "quick", deadline_s: int = 600, **more: Any) -> Any:
        """A policy of (channel, success, wait_s)."""
        made = [{"channel": channel, "success": success, "wait_s": wait_s} for channel, success, wait_s in steps]
        body = {"steps": made, "deadline_s": deadline_s, **more}
        return self.post(f"/notifications/v1/channel_policies/{slug}", body, status=200, method="PUT")

    def contact(self, phone: str | None = None, email: str | None = None) -> str:
        """A contact's id."""
        body = {"name": "Meera", "phone": phone, "email": email}
        return str(self.post("/crm/v1/contacts", {k: v for k, v in body.items() if v is not None})["id"])

    def send(self, **body: Any) -> str:
        """A message's id."""
        return str(
            self.post("/notifications/v1/messages", {"template": "reminder", "vars": {"time": "5"}} | body)["id"]
        )

    def message(self, id: str) -> Any:
        """A message as it stands."""
        return self.get(f"/notifications/v1/messages/{id}")

    def audit(self, id: str) -> list[Any]:
        """A message's whole timeline."""
        found: list[Any] = self.get(f"/notifications/v1/messages/{id}/audit?limit=100")["data"]
        return found

    def events(self, *types: str) -> list[Any]:
        """The events of these types, oldest first."""
        query = "&".join(["limit=100", *(f"type={type}" for type in types)])
        found: list[Any] = self.get(f"/v1/events?{query}")["data"]
        return found

    def advance(self, seconds: float) -> None:
        """Move the test clock."""
        self.post("/v1/test_helpers/clock", {"advance_s": seconds}, status=200)

    async def until(self, id: str, *statuses: str, timeout_s: float = 20) -> Any:
        """Wait until a message has one of these states; answers it."""

        async def there() -> Any:
            found = await asyncio.to_thread(self.message, id)
            return found if found["status"] in statuses else None

        return await until(there, f"message {id} never became {statuses}", timeout_s)


def post_of(account: Account) -> Post:
    """A workspace's view of messages, with its own client."""
    return Post(account.client())


async def until(true: Callable[[], Awaitable[Any]], complaint: str, timeout_s: float = 20) -> Any:
    """Wait until something holds; answers it."""
    until_s = time.monotonic() + timeout_s
    while True:
        found = await true()
        if found:
            return found
        assert time.monotonic() < until_s, complaint
        await asyncio.sleep(0.03)


@asynccontextmanager
async def sending(
    api: Api, pipelines: Sequence[PipelineFactory] = PIPELINES, **settings: Any
) -> AsyncIterator[Runtime]:
    """The send line at work in this loop; instead of bells it is woken all the time."""
    runtime = Runtime(
        database=DatabaseSettings(DATABASE_URL=api.database_url, database_pool_size=12),
        wakeup_settings=WakeupSettings(REDIS_URL=api.redis_url),
        work=WorkSettings(**{"metrics_port": 0, "lease_s": 5, "drain_s": 5, **settings}),
        http_client=EgressSettings(egress_allow=(IPv4Network("127.0.0.0/8"),)),
        vault=VaultSettings(encryption_key=SecretStr(KEY)),
        wakeup_status=WakeupStatus(),
        pipelines=pipelines,
    )
    await runtime.start()
    enough = asyncio.Event()
    waking = asyncio.create_task(_wake(runtime, enough))
    try:
        yield runtime
    finally:
        enough.set()
        await waking
        await runtime.stop()


# Told to stop, not cancelled: before Python 3.12 `asyncio.wait_for`, which the Redis client sends with, may lose a
# cancellation, and the task would open a connection again after the last one was closed.
async def _wake(runtime: Runtime, enough: asyncio.Event) -> None:
    while not enough.is_set():
        with contextlib.suppress(OSError):
            await runtime.on_wakeup("send")
        await asyncio.sleep(0.03)
