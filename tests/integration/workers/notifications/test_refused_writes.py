"""What Postgres refuses to store of one message holds up no other message of its batch."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from spine.kernel.metrics import results_set_apart
from tests.api import Api, Organisation
from tests.database import owner_connection
from tests.message_engine import NotificationsClient, end_leases, fetch_value, sending, until
from workers.notifications.dispatch import MessageDispatcher
from workers.pipeline import WorkerContext

DELIVERED, SILENT, UNREACHABLE = "+910000000000", "+910000000020", "+910000000030"
ONE = {"template": "reminder", "vars": {"time": "5"}, "channels": ["sms"]}


@asynccontextmanager
async def refusing(api: Api, condition: str) -> AsyncIterator[None]:
    """Let `spine.attempts` refuse rows that do not meet a condition, as a value that no column takes."""
    async with owner_connection(api) as owner:
        await owner.execute(f"ALTER TABLE spine.attempts ADD CONSTRAINT refused CHECK ({condition}) NOT VALID")
    try:
        yield
    finally:
        async with owner_connection(api) as owner:
            await owner.execute("ALTER TABLE spine.attempts DROP CONSTRAINT refused")


def send_batch(client: NotificationsClient, poison: str = DELIVERED) -> tuple[str, list[str]]:
    """Send 21 messages in one request, one of them to another number. Returns its id and those of the others."""
    messages = [ONE | {"to": DELIVERED} for _ in range(21)]
    messages[7]["to"] = poison
    made = [row["id"] for row in client.post("/notifications/v1/messages/batch", {"messages": messages})["data"]]
    return made.pop(7), made


async def all_delivered(api: Api, ids: list[str]) -> None:
    """Wait until these messages are delivered."""
    query = "SELECT count(*) = cardinality($1::text[]) FROM spine.messages WHERE id = ANY ($1) AND status = 'delivered'"
    await until(lambda: fetch_value(api, query, ids), "not all messages were delivered")


def count(outcome: str) -> Any:
    """How often a result was set apart so."""
    return results_set_apart(outcome)._value.get()


async def test_a_refused_result_is_recorded_without_the_providers_words(api: Api, client: NotificationsClient) -> None:
    """The outcome holds, the code says why the rest is missing, and the other results are written as they are."""
    before = count("reduced")
    poison, others = send_batch(client, UNREACHABLE)
    async with refusing(api, "provider_code IS DISTINCT FROM 'recipient_unreachable'"), sending(api):
        await all_delivered(api, others)
        found = await client.until(poison, "failed")
    assert [(one["outcome"], one["class"], one["provider_code"]) for one in found["attempts"]] == [
        ("rejected", "recipient", "result_refused")
    ]
    assert count("reduced") == before + 1


async def test_a_result_that_cannot_be_recorded_is_that_of_a_lost_worker(
    api: Api, client: NotificationsClient, org: Organisation
) -> None:
    """The others are delivered; the attempt stays without an outcome until its lease ends, and is then decided on again."""
    before = count("put_off")
    poison, others = send_batch(client, SILENT)
    async with sending(api):
        async with refusing(api, f"message_id <> '{poison}' OR outcome IS NULL"):
            await all_delivered(api, others)
            await until(lambda: _is_more(before), "the result was not put off")
            assert client.message(poison)["status"] == "sending"
        await end_leases(api, org.test)
        assert len((await client.until(poison, "sent"))["attempts"]) == 1
    assert [entry["kind"] for entry in client.audit(poison)].count("attempt.repeated") == 1


async def _is_more(before: float) -> bool:
    return bool(count("put_off") > before)


async def test_a_refused_decision_leaves_its_message_alone(
    api: Api, client: NotificationsClient, org: Organisation
) -> None:
    """A message whose attempt cannot be written waits for the end of its lease; those claimed with it are delivered."""
    poison, others = send_batch(client)
    async with sending(api):
        async with refusing(api, f"message_id <> '{poison}'"):
            await all_delivered(api, others)
            assert client.message(poison)["attempts"] == []
        await end_leases(api, org.test)
        await client.until(poison, "delivered")


class SlowToRecord(MessageDispatcher):
    """A worker that records no result until `go_on` is set."""

    go_on: asyncio.Event

    def __init__(self, context: WorkerContext) -> None:
        super().__init__(context)
        recorder: Any = self.recorder
        step = recorder.step

        async def step_late() -> None:
            await self.go_on.wait()
            await step()

        recorder.step = step_late


async def test_a_result_that_is_not_recorded_yet_is_not_lost(
    api: Api, client: NotificationsClient, org: Organisation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease ends before the result of the call is recorded: the same worker waits for it, and calls nobody again."""
    monkeypatch.setattr(SlowToRecord, "go_on", asyncio.Event(), raising=False)
    id = client.send(to=SILENT, channels=["sms"])
    claimed = "SELECT count(*) FROM spine.sends_open WHERE id = $1 AND leased_by IS NOT NULL AND due_at > now()"
    called = "SELECT count(*) FROM spine.sandbox_calls WHERE workspace_id = $1"
    async with sending(api, (SlowToRecord,)) as runtime:
        await until(lambda: fetch_value(api, called, org.test.workspace_id), "the call was not made")
        await end_leases(api, org.test)
        await runtime.receive_job("send")
        await until(lambda: fetch_value(api, claimed, id), "the message was not claimed again")
        await asyncio.sleep(0.3)
        SlowToRecord.go_on.set()
        await client.until(id, "sent")
    assert "attempt.repeated" not in [entry["kind"] for entry in client.audit(id)]
