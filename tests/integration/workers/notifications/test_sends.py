"""Messages on their way: every sandbox fate, receipts in any order, the test clock, workers that die, wishes."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import asyncpg
import httpx
import orjson
import pytest

from spine.webhooks.signing import sign
from tests.api import Account, Api, Organisation
from tests.message_engine import Post, post_of, sending, until
from workers.notifications.receipts import ReceiptPipeline
from workers.notifications.send import MessageSender

SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TWO = (("whatsapp", "delivered", 1), ("sms", "delivered", 2))


@pytest.fixture
def post(org: Organisation) -> Iterator[Post]:
    """A test workspace with a template, and a policy of short waits."""
    made = post_of(org.test)
    with made.http:
        made.template()
        made.policy(*TWO)
        yield made


async def fetch(api: Api, query: str, *values: Any) -> Any:
    """One value, read as the database's owner."""
    connection = await asyncpg.connect(api.database_url)
    try:
        return await connection.fetchval(query, *values)
    finally:
        await connection.close()


def told(post: Post, id: str) -> list[str]:
    """What the message's events said, in their sequence."""
    mine = [event for event in post.events("message.*") if event["data"]["message_id"] == id]
    mine.sort(
        key=lambda event: int(event["sequence"])
    )  # the list is ordered by transactions, which may overtake each other
    assert [event["sequence"] for event in mine] == list(range(1, len(mine) + 1))
    return [event["type"].partition(".")[2] for event in mine]


def replayed(entries: list[Any]) -> str:
    """The state that a timeline ends in."""
    return str([entry["detail"]["status"] for entry in entries if "status" in entry["detail"]][-1])


FATES: list[tuple[str, str, str, list[tuple[str, str, str | None]], bool]] = [
    ("00", "delivered", "whatsapp", [("whatsapp", "accepted", None)], False),
    ("10", "read", "whatsapp", [("whatsapp", "accepted", None)], False),
    ("20", "delivered", "sms", [("whatsapp", "accepted", None), ("sms", "accepted", None)], True),
    ("30", "delivered", "sms", [("whatsapp", "rejected", "recipient"), ("sms", "accepted", None)], False),
    (
        "40",
        "delivered",
        "whatsapp",
        [("whatsapp", "rejected", "transient"), ("whatsapp", "rejected", "transient"), ("whatsapp", "accepted", None)],
        False,
    ),
    ("50", "delivered", "sms", [("whatsapp", "rejected", "rate"), ("sms", "accepted", None)], False),
    ("60", "delivered", "sms", [("whatsapp", "unknown", "timeout"), ("sms", "accepted", None)], True),
    ("70", "delivered", "whatsapp", [("whatsapp", "accepted", None)], False),
    ("80", "delivered", "whatsapp", [("whatsapp", "accepted", None)], False),
    ("90", "delivered", "sms", [("whatsapp", "accepted", None), ("sms", "accepted", None)], True),
    ("33", "failed", "sms", [("whatsapp", "rejected", "recipient"), ("sms", "rejected", "recipient")], False),
]
IMAGINED = {
    "0": "delivered", "1": "read", "2": "none", "3": "rejected", "4": "transient", "5": "rate_limited", "6": "timeout",
    "7": "delivered", "8": "delivered", "9": "late",
}  # fmt: skip


async def test_every_fate_of_the_sandbox_and_the_simulation_agrees(api: Api, post: Post) -> None:
    """Each recipient's fate comes true, with its attempts and events once each, and `/simulate` had said so."""
    async with sending(api):
        sent = {fate: post.send(to=f"+910000000{fate}0") for fate, *_ in FATES}
        for fate, status, channel, attempts, duplicate in FATES:
            found = await post.until(sent[fate], status)
            assert found["channel"] == channel, fate
            assert [(one["channel"], one["outcome"], one["class"]) for one in found["attempts"]] == attempts, fate
            assert found["duplicate_possible"] == duplicate, fate
            world = {"receipts": {"whatsapp": IMAGINED[fate[0]], "sms": IMAGINED[fate[1]]}}
            trace = post.post("/notifications/v1/channel_policies/quick/simulate", {"world": world}, status=200)
            calls = [line["channel"] for line in trace["trace"] if line["action"] == "send"]
            assert calls == [one["channel"] for one in found["attempts"]], fate
            assert (trace["outcome"], trace["duplicate_possible"]) == (status, duplicate), fate
    for fate, status, _, attempts, _ in FATES:
        accepted = sum(outcome == "accepted" for _, outcome, _ in attempts)
        end = ["failed"] if status == "failed" else ["delivered"]
        assert told(post, sent[fate]) == ["created", *["sent"] * accepted, *end], fate
        assert replayed(post.audit(sent[fate])) == status, fate
    failed = post.message(sent["33"])
    assert [(reason["channel"], reason["reason"]) for reason in failed["reasons"]] == [
        ("whatsapp", "recipient"), ("sms", "recipient"),
    ]  # fmt: skip


async def test_a_late_receipt_changes_the_attempt_and_tells_nothing_twice(api: Api, post: Post) -> None:
    """After the SMS was delivered, WhatsApp's late receipt makes no third send and no second event (failure case 6)."""
    id = post.send(to="+910000000900")
    async with sending(api):

        async def both() -> Any:
            attempts = (await asyncio.to_thread(post.message, id))["attempts"]
            return [one["status"] for one in attempts] == ["delivered", "delivered"]

        await until(both, "the late receipt never came")
    assert told(post, id) == ["created", "sent", "sent", "delivered"]


async def test_a_delivery_after_the_end_overrides_a_failure(api: Api, post: Post) -> None:
    """Both channels silent until the wait is over: failed, then delivered late (failure case 4)."""
    id = post.send(to="+910000000290")
    async with sending(api):
        found = await post.until(id, "delivered")
    assert (found["late_success"], found["duplicate_possible"]) == (True, True)
    assert told(post, id) == ["created", "sent", "sent", "failed", "delivered"]


async def test_mail_has_its_fates_too(api: Api, post: Post) -> None:
    """delivered@, bounce@, deferred@ and silent@sandbox.test."""
    post.policy(("email", "delivered", 2), slug="mail", applies_to={"template": "reminder"})
    wanted = {"delivered": "delivered", "bounce": "failed", "deferred": "delivered", "silent": "failed"}
    async with sending(api):
        sent = {name: post.send(to=f"{name}@sandbox.test") for name in wanted}
        for name, status in wanted.items():
            found = await post.until(sent[name], status)
            assert len(found["attempts"]) == (3 if name == "deferred" else 1)
    assert post.message(sent["bounce"])["reasons"][0]["reason"] == "recipient"
    assert post.message(sent["silent"])["reasons"][0]["reason"] == "delivery_unknown"


async def test_the_test_clock_moves_waits_starts_and_late_receipts(api: Api, post: Post) -> None:
    """An hour's wait is over after an hour of the test clock; fate 9 then still comes after the fallback."""
    post.policy(("whatsapp", "delivered", 3600), ("sms", "delivered", 3600), deadline_s=20_000)
    scheduled = post.send(
        to="+910000000000", send_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 7200))
    )
    assert post.message(scheduled)["status"] == "scheduled"
    waiting = post.send(to="+910000000900")
    async with sending(api):
        await post.until(waiting, "sent")
        post.advance(3601)
        found = await post.until(waiting, "delivered")
        assert [one["channel"] for one in found["attempts"]] == ["whatsapp", "sms"]
        assert post.message(scheduled)["status"] == "scheduled"
        post.advance(3601)
        await post.until(scheduled, "delivered")

        async def late() -> Any:
            return (await asyncio.to_thread(post.message, waiting))["attempts"][0]["status"] == "delivered"

        await until(late, "the late receipt never came")
    assert told(post, waiting) == ["created", "sent", "sent", "delivered"]


async def test_the_deadline_ends_a_message(api: Api, post: Post) -> None:
    """What was not delivered by its deadline has failed, and says so."""
    post.policy(("whatsapp", "delivered", 3600), deadline_s=1800)
    id = post.send(to="+910000000200")
    async with sending(api):
        await post.until(id, "sent")
        post.advance(1801)
        found = await post.until(id, "failed")
    assert [reason["reason"] for reason in found["reasons"]] == ["delivery_unknown", "deadline_exceeded"]


async def test_a_person_answers_and_is_heard(api: Api, post: Post) -> None:
    """A reply is told of; a STOP is kept as a wish, ends this message's steps, and blocks its category (case 19)."""
    replier, stopper = post.contact("+910000000001"), post.contact("+910000000202")
    answered, stopped = post.send(contact_id=replier), post.send(contact_id=stopper)
    async with sending(api):
        found = await post.until(stopped, "failed")
        assert [one["channel"] for one in found["attempts"]] == ["whatsapp"]
        assert [reason["reason"] for reason in found["reasons"]] == ["delivery_unknown", "opted_out"]
        await post.until(answered, "delivered")
        blocked = await post.until(post.send(contact_id=stopper, channels=["whatsapp"]), "failed")
        assert [reason["reason"] for reason in blocked["reasons"]] == ["opted_out"]
        assert blocked["attempts"] == []
        post.template(slug="otp", category="otp")
        await post.until(post.send(contact_id=stopper, channels=["whatsapp"], template="otp"), "sent")

        async def replies() -> Any:
            return len(await asyncio.to_thread(post.events, "message.replied")) >= 3

        await until(replies, "the replies never came")
    wishes = post.get(f"/notifications/v1/preferences?contact_id={stopper}")["data"]
    assert [(one["channel"], one["category"], one["opted_out"], one["source"]) for one in wishes if one["category"] == "marketing"] == [
        ("whatsapp", "marketing", True, "reply")
    ]  # fmt: skip
    reply = next(event for event in post.events("message.replied") if event["data"]["message_id"] == answered)
    assert (reply["data"]["wish"], reply["data"]["contact_id"], reply["actor"]["type"]) == (None, replier, "contact")
    changed = post.events("preference.changed")
    assert changed[0]["data"]["contact_id"] == stopper
    kinds = [entry["kind"] for entry in post.get(f"/crm/v1/contacts/{stopper}/timeline")["data"]]
    assert {"message.replied", "preference.changed"} <= set(kinds)


async def test_a_wish_is_kept_and_taken_back(api: Api, post: Post) -> None:
    """PUT opts out and in; the same again changes nothing, and the history keeps both."""
    contact = post.contact("+910000000000")
    wish = {"contact_id": contact, "channel": "whatsapp", "category": "marketing", "opted_out": True}
    first = post.post("/notifications/v1/preferences", wish, status=200, method="PUT")
    assert post.post("/notifications/v1/preferences", wish, status=200, method="PUT") == first
    async with sending(api):
        found = await post.until(post.send(contact_id=contact), "delivered")
        assert found["channel"] == "sms"
        assert [reason["reason"] for reason in found["reasons"]] == ["opted_out"]
        post.post("/notifications/v1/preferences", wish | {"opted_out": False}, status=200, method="PUT")
        assert (await post.until(post.send(contact_id=contact), "delivered"))["channel"] == "whatsapp"
    assert len(post.events("preference.changed")) == 2


async def test_quiet_hours_hold_a_message_until_they_end(api: Api, post: Post) -> None:
    """A step that falls into them waits for their end, as the test clock shows, and is then sent."""
    now = time.gmtime(time.time() - 60)
    later = time.gmtime(time.time() + 7200)
    quiet = {"start": time.strftime("%H:%M", now), "end": time.strftime("%H:%M", later), "time_zone": "UTC"}
    post.policy(("whatsapp", "delivered", 60), deadline_s=90_000, quiet_hours=quiet)
    id = post.send(to="+910000000000")
    async with sending(api):

        async def held() -> Any:
            return [entry for entry in await asyncio.to_thread(post.audit, id) if entry["kind"] == "held"]

        await until(held, "it was not held")
        assert post.message(id)["attempts"] == []
        post.advance(7200)
        await post.until(id, "delivered")


async def test_an_account_can_be_told_to_fail_and_to_heal(api: Api, post: Post) -> None:
    """An outage is a connection that fails, tried again and then gone round; timeouts are outcomes unknown."""
    accounts = {one["channel"]: one["id"] for one in post.get("/notifications/v1/provider_accounts")["data"]}
    at = f"/notifications/v1/provider_accounts/{accounts['whatsapp']}"
    async with sending(api):
        post.post(at, {"sandbox": {"outage": True}}, status=200, method="PATCH")
        found = await post.until(post.send(to="+910000000000"), "delivered")
        assert [(one["channel"], one["class"]) for one in found["attempts"]] == [
            ("whatsapp", "connect"), ("whatsapp", "connect"), ("whatsapp", "connect"), ("sms", None),
        ]  # fmt: skip
        post.post(at, {"sandbox": {"outage": "timeouts"}}, status=200, method="PATCH")
        found = await post.until(post.send(to="+910000000000"), "delivered")
        assert [(one["channel"], one["outcome"]) for one in found["attempts"]] == [
            ("whatsapp", "unknown"),
            ("sms", "accepted"),
        ]
        post.post(at, {"sandbox": {"outage": "slow_ms", "slow_ms": 50}}, status=200, method="PATCH")
        assert (await post.until(post.send(to="+910000000000"), "delivered"))["channel"] == "whatsapp"
        healed = post.post(at, {"sandbox": {"outage": False}}, status=200, method="PATCH")
        assert healed["sandbox"]["outage"] is False
        assert (await post.until(post.send(to="+910000000000"), "delivered"))["channel"] == "whatsapp"


# --- receipts over the route -----------------------------------------------------------------------------------------


def receipt(
    account: str, client: httpx.Client, body: dict[str, Any], *, at_s: float | None = None, secret: str = SECRET
) -> httpx.Response:
    """A signed callback, as a provider sends it: without a key to the API."""
    raw = orjson.dumps(body)
    timestamp_s = int(at_s or time.time())
    headers = {
        "webhook-id": "cb_1", "webhook-timestamp": str(timestamp_s), "webhook-signature": sign("cb_1", timestamp_s, raw, [secret]),
        "content-type": "application/json",
    }  # fmt: skip
    return client.post(f"/notifications/v1/inbound/{account}", content=raw, headers=headers)


def unsigned(account: str, client: httpx.Client, body: dict[str, Any]) -> httpx.Response:
    """A callback that nobody signed."""
    return client.post(f"/notifications/v1/inbound/{account}", json=body)


@pytest.fixture
def own(post: Post) -> str:
    """A sandbox account of the test's own, before the others, whose secret the test knows."""
    body = {"channel": "whatsapp", "kind": "sandbox", "priority": 1, "credentials": {"secret": SECRET}}
    return str(post.post("/notifications/v1/provider_accounts", body)["id"])


@pytest.fixture
def callback(api: Api) -> Iterator[httpx.Client]:
    """A caller without any key."""
    with httpx.Client(base_url=api.url, trust_env=False) as client:
        yield client


async def test_receipts_are_signed_stored_once_and_taken_in_any_order(
    api: Api, post: Post, own: str, callback: httpx.Client
) -> None:
    """Bad and old signatures are 401; a repeated receipt changes nothing; a late `sent` undoes nothing (cases 1, 3, 15)."""
    post.policy(("whatsapp", "delivered", 600), ("sms", "delivered", 600), deadline_s=2000)
    id = post.send(to="+910000000200")
    async with sending(api):
        attempt = (await post.until(id, "sent"))["attempts"][0]
        told_by = {
            "attempt_id": attempt["id"],
            "id": attempt["provider_message_id"],
            "timestamp": "2026-11-02T10:00:00Z",
        }
        delivered = told_by | {"status": "delivered"}
        for refused in (
            receipt(own, callback, delivered, at_s=time.time() - 600),
            receipt(own, callback, delivered, secret="whsec_" + "B" * 32),
            receipt("prv_01J9XAAAAAAAAAAAAAAAAAAAAA", callback, delivered),
            unsigned(own, callback, delivered),
        ):
            assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")
        assert post.message(id)["status"] == "sent"
        for _ in range(3):
            assert receipt(own, callback, delivered).status_code == 200
        assert receipt(own, callback, told_by | {"status": "sent"}).status_code == 200
        assert receipt(own, callback, told_by | {"status": "rejected_by_moon"}).status_code == 200
    assert told(post, id) == ["created", "sent", "delivered"]
    stored = await fetch(api, "SELECT count(*) FROM spine.receipts WHERE provider_account_id = $1", own)
    assert stored == 3
    assert [entry["actor"]["type"] for entry in post.audit(id) if entry["kind"] == "receipt"] == ["provider"] * 3


async def test_a_failure_by_receipt_falls_back_at_once(api: Api, post: Post, own: str, callback: httpx.Client) -> None:
    """A receipt that says failed does not wait for the timer; a later delivered overrides it (cases 4, 7, 9)."""
    post.policy(("whatsapp", "delivered", 600), ("sms", "delivered", 600), deadline_s=2000)
    id = post.send(to="+910000000200")
    async with sending(api):
        attempt = (await post.until(id, "sent"))["attempts"][0]
        told_by = {"attempt_id": attempt["id"], "id": attempt["provider_message_id"]}
        failed = told_by | {"status": "failed", "timestamp": "1", "error": "131026"}
        assert receipt(own, callback, failed).status_code == 200
        found = await post.until(id, "delivered")
        assert (found["channel"], found["duplicate_possible"]) == ("sms", False)
        assert (found["attempts"][0]["class"], found["attempts"][0]["provider_code"]) == ("recipient", "131026")
        assert receipt(own, callback, told_by | {"status": "delivered", "timestamp": "2"}).status_code == 200
    found = post.message(id)
    assert (found["duplicate_possible"], found["attempts"][0]["late_success"]) == (True, True)
    assert told(post, id) == ["created", "sent", "sent", "delivered"]


async def test_a_receipt_of_a_message_we_do_not_know_is_parked_and_matched_later(
    api: Api, post: Post, own: str, callback: httpx.Client
) -> None:
    """Never a 404; the receipt finds its attempt as soon as that is known (failure case 2)."""
    id = post.send(to="+910000000200", channels=["whatsapp"])
    early = {"id": "somebody-elses", "status": "delivered", "timestamp": "1"}
    assert receipt(own, callback, early).status_code == 200
    async with sending(api):
        attempt = (await post.until(id, "sent"))["attempts"][0]
        await fetch(
            api, "UPDATE spine.attempts SET provider_message_id = 'somebody-elses' WHERE id = $1", attempt["id"]
        )
        assert (await post.until(id, "delivered"))["attempts"][0]["status"] == "delivered"


async def test_a_receipt_and_the_timer_at_one_instant_take_turns(
    api: Api, post: Post, own: str, callback: httpx.Client
) -> None:
    """Twenty times the receipt comes as the wait ends: either it is in time, or the fallback leaves, never neither (case 7)."""
    post.policy(("whatsapp", "delivered", 600), ("sms", "delivered", 600), deadline_s=2000)
    sent = [post.send(to="+910000000200") for _ in range(20)]
    async with sending(api):
        attempts = [(await post.until(id, "sent"))["attempts"][0] for id in sent]

        def deliver(attempt: Any) -> int:
            body = {
                "attempt_id": attempt["id"],
                "id": attempt["provider_message_id"],
                "status": "delivered",
                "timestamp": "1",
            }
            return receipt(own, callback, body).status_code

        clock = asyncio.to_thread(post.advance, 601)
        codes = await asyncio.gather(clock, *(asyncio.to_thread(deliver, one) for one in attempts))
        assert set(codes[1:]) == {200}
        for id in sent:
            await post.until(id, "delivered")
    for id in sent:
        names = told(post, id)
        assert names.count("delivered") == 1
        assert names in (
            ["created", "sent", "delivered"],
            ["created", "sent", "sent", "delivered"],
            ["created", "sent", "delivered", "sent"],
        )


# --- workers that die ------------------------------------------------------------------------------------------------


class DiesAfterTheCall(MessageSender):
    """A worker that is gone between its call and the record of it."""

    async def _record_step(self) -> None:
        await asyncio.Event().wait()

    async def drain(self, within_s: float) -> None:
        """No time for that."""


async def leases_end(api: Api, account: Account) -> None:
    """Let the time pass after which a dead worker's rows come due."""
    for table in ("sends_open", "sandbox_receipts"):
        await fetch(api, f"UPDATE spine.{table} SET due_at = now() WHERE workspace_id = $1", account.workspace_id)


async def test_a_worker_that_dies_after_the_call_repeats_nothing(api: Api, post: Post, org: Organisation) -> None:
    """One message for the person, one attempt, one of each event: the sandbox counts a repeated attempt once (N-01)."""
    sent = [post.send(to="+910000000000") for _ in range(5)]
    async with sending(api, (DiesAfterTheCall,)):

        async def called() -> Any:
            return await fetch(
                api, "SELECT count(*) = 5 FROM spine.sandbox_calls WHERE workspace_id = $1", org.test.workspace_id
            )

        await until(called, "the calls were not made")
    assert [post.message(id)["status"] for id in sent] == ["sending"] * 5
    await leases_end(api, org.test)
    async with sending(api):
        for id in sent:
            found = await post.until(id, "delivered")
            assert len(found["attempts"]) == 1
    assert (
        await fetch(api, "SELECT count(*) FROM spine.sandbox_calls WHERE workspace_id = $1", org.test.workspace_id) == 5
    )
    for id in sent:
        assert told(post, id) == ["created", "sent", "delivered"]


async def test_a_killed_worker_loses_no_receipt(api: Api, post: Post, org: Organisation) -> None:
    """Receipts that the sandbox owes are rows; a worker without their line leaves them to the next one."""
    id = post.send(to="+910000000000")
    async with sending(api, (MessageSender,)):
        await post.until(id, "sent")
    await leases_end(api, org.test)
    async with sending(api, (ReceiptPipeline,)):
        await post.until(id, "delivered")


async def test_many_workers_make_one_call_each(api: Api, post: Post, org: Organisation) -> None:
    """Three workers on one queue: no attempt is made twice, and every message ends (failure case 5)."""
    body = {"to": "+910000000030", "template": "reminder", "vars": {"time": "5"}}
    made = post.post("/notifications/v1/messages/batch", {"messages": [body] * 150})["data"]
    async with sending(api), sending(api), sending(api):

        async def ended() -> Any:
            query = "SELECT count(*) = 150 FROM spine.messages WHERE workspace_id = $1 AND status = 'delivered'"
            return await fetch(api, query, org.test.workspace_id)

        await until(ended, "they did not all end", 40)
    per_message = (
        "SELECT max(n) FROM (SELECT count(*) AS n FROM spine.attempts WHERE workspace_id = $1 GROUP BY message_id) c"
    )
    assert await fetch(api, per_message, org.test.workspace_id) == 1
    assert (
        await fetch(api, "SELECT count(*) FROM spine.sandbox_calls WHERE workspace_id = $1", org.test.workspace_id)
        == 150
    )
    assert await fetch(api, "SELECT count(*) FROM spine.sends_open WHERE workspace_id = $1", org.test.workspace_id) == 0
    assert len(made) == 150
