"""Messages through the sandbox: every scripted outcome, mail, waits and deadlines, the test clock, and outages."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from policies.weights import in_turn
from policies.windows import dlt_window_closed
from tests.api import Api
from tests.message_engine import NotificationsClient, sending, until

ACCOUNTS = "/notifications/v1/provider_accounts"
OUTCOMES: list[tuple[str, str, str, list[tuple[str, str, str | None]], bool]] = [
    # Last digits of the number but one, status, channel, attempts (channel, outcome, class), duplicate possible.
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
    ("31", "read", "sms", [("whatsapp", "rejected", "recipient"), ("sms", "accepted", None)], False),
    ("32", "failed", "sms", [("whatsapp", "rejected", "recipient"), ("sms", "accepted", None)], False),
    (
        "34",
        "delivered",
        "sms",
        [
            ("whatsapp", "rejected", "recipient"),
            ("sms", "rejected", "transient"),
            ("sms", "rejected", "transient"),
            ("sms", "accepted", None),
        ],
        False,
    ),
    ("35", "failed", "sms", [("whatsapp", "rejected", "recipient"), ("sms", "rejected", "rate")], False),
    ("36", "failed", "sms", [("whatsapp", "rejected", "recipient"), ("sms", "unknown", "timeout")], False),
    ("37", "delivered", "sms", [("whatsapp", "rejected", "recipient"), ("sms", "accepted", None)], False),
    ("38", "delivered", "sms", [("whatsapp", "rejected", "recipient"), ("sms", "accepted", None)], False),
]
SIMULATED = {
    "0": "delivered", "1": "read", "2": "none", "3": "rejected", "4": "transient", "5": "rate_limited", "6": "timeout",
    "7": "delivered", "8": "delivered", "9": "late",
}  # fmt: skip
"""The world of `/simulate` that stands for each digit of the sandbox's numbers."""


def last_status(entries: list[Any]) -> str:
    """The status that a timeline ends in."""
    return str([entry["detail"]["status"] for entry in entries if "status" in entry["detail"]][-1])


async def test_every_scripted_outcome_agrees_with_the_simulation(api: Api, client: NotificationsClient) -> None:
    """Each sandbox number has its scripted outcome, attempts and events once each, as `/simulate` says before."""
    async with sending(api):
        sent = {digits: client.send(to=f"+910000000{digits}0") for digits, *_ in OUTCOMES}
        for digits, status, channel, attempts, duplicate in OUTCOMES:
            found = await client.until(sent[digits], status)
            assert found["channel"] == channel, digits
            assert [(one["channel"], one["outcome"], one["class"]) for one in found["attempts"]] == attempts, digits
            assert found["duplicate_possible"] == duplicate, digits
            world = {"receipts": {"whatsapp": SIMULATED[digits[0]], "sms": SIMULATED[digits[1]]}}
            trace = client.post("/notifications/v1/channel_policies/quick/simulate", {"world": world}, status=200)
            calls = [step["channel"] for step in trace["trace"] if step["action"] == "send"]
            assert calls == [one["channel"] for one in found["attempts"]], digits
            assert (trace["outcome"], trace["duplicate_possible"]) == (status, duplicate), digits
    for digits, status, _, attempts, _ in OUTCOMES:
        accepted = sum(outcome == "accepted" for _, outcome, _ in attempts)
        end = ["failed"] if status == "failed" else ["delivered"]
        assert client.event_names(sent[digits]) == ["created", *["sent"] * accepted, *end], digits
        assert last_status(client.audit(sent[digits])) == status, digits
    failed = client.message(sent["33"])
    assert [(reason["channel"], reason["reason"]) for reason in failed["reasons"]] == [
        ("whatsapp", "recipient"), ("sms", "recipient"),
    ]  # fmt: skip


async def test_a_late_receipt_changes_the_attempt_and_emits_nothing(api: Api, client: NotificationsClient) -> None:
    """After the SMS was delivered, WhatsApp's late receipt makes no third send and no second event (failure case 6)."""
    id = client.send(to="+910000000900")
    async with sending(api):

        async def both() -> Any:
            attempts = (await asyncio.to_thread(client.message, id))["attempts"]
            return [one["status"] for one in attempts] == ["delivered", "delivered"]

        await until(both, "the late receipt never came")
    assert client.event_names(id) == ["created", "sent", "sent", "delivered"]


async def test_a_delivery_after_the_end_overrides_a_failure(api: Api, client: NotificationsClient) -> None:
    """No receipt on either channel until the wait is over: failed, then delivered late (failure case 4)."""
    id = client.send(to="+910000000290")
    async with sending(api):
        found = await client.until(id, "delivered")
    assert (found["late_success"], found["duplicate_possible"]) == (True, True)
    assert client.event_names(id) == ["created", "sent", "sent", "failed", "delivered"]


async def test_mail_has_scripted_outcomes(api: Api, client: NotificationsClient) -> None:
    """The sandbox addresses are delivered@, bounce@, deferred@ and silent@sandbox.test."""
    client.policy(("email", "delivered", 2), slug="mail", applies_to={"template": "reminder"})
    statuses = {"delivered": "delivered", "bounce": "failed", "deferred": "delivered", "silent": "failed"}
    async with sending(api):
        sent = {name: client.send(to=f"{name}@sandbox.test") for name in statuses}
        for name, status in statuses.items():
            found = await client.until(sent[name], status)
            assert len(found["attempts"]) == (3 if name == "deferred" else 1)
    assert client.message(sent["bounce"])["reasons"][0]["reason"] == "recipient"
    assert client.message(sent["silent"])["reasons"][0]["reason"] == "delivery_unknown"


async def test_the_test_clock_moves_waits_starts_and_late_receipts(api: Api, client: NotificationsClient) -> None:
    """A wait of an hour ends after an hour of the test clock; outcome 9 still comes after the fallback."""
    client.policy(("whatsapp", "delivered", 3600), ("sms", "delivered", 3600), deadline_s=20_000)
    send_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 7200))
    scheduled = client.send(to="+910000000000", send_at=send_at)
    assert client.message(scheduled)["status"] == "scheduled"
    waiting = client.send(to="+910000000900")
    async with sending(api):
        await client.until(waiting, "sent")
        await asyncio.to_thread(client.advance, 3601)
        found = await client.until(waiting, "delivered")
        assert [one["channel"] for one in found["attempts"]] == ["whatsapp", "sms"]
        assert client.message(scheduled)["status"] == "scheduled"
        await asyncio.to_thread(client.advance, 3601)
        await client.until(scheduled, "delivered")

        async def late() -> Any:
            return (await asyncio.to_thread(client.message, waiting))["attempts"][0]["status"] == "delivered"

        await until(late, "the late receipt never came")
    # The clock makes the fallback and the late receipt due together: the receipt may come during the fallback's call.
    assert client.event_names(waiting) in (
        ["created", "sent", "sent", "delivered"],
        ["created", "sent", "delivered", "sent"],
    )
    assert client.message(waiting)["duplicate_possible"] is True


async def test_the_deadline_ends_a_message(api: Api, client: NotificationsClient) -> None:
    """A message that is not delivered by its deadline fails with this reason."""
    client.policy(("whatsapp", "delivered", 3600), deadline_s=1800)
    id = client.send(to="+910000000200")
    async with sending(api):
        await client.until(id, "sent")
        await asyncio.to_thread(client.advance, 1801)
        found = await client.until(id, "failed")
    assert [reason["reason"] for reason in found["reasons"]] == ["delivery_unknown", "deadline_exceeded"]


async def test_quiet_hours_hold_a_message_until_they_end(api: Api, client: NotificationsClient) -> None:
    """A step that falls into quiet hours waits for their end on the test clock, and is then sent."""
    start, end = time.gmtime(time.time() - 60), time.gmtime(time.time() + 7200)
    quiet = {"start": time.strftime("%H:%M", start), "end": time.strftime("%H:%M", end), "time_zone": "UTC"}
    client.policy(("whatsapp", "delivered", 60), deadline_s=90_000, quiet_hours=quiet)
    id = client.send(to="+910000000000")
    async with sending(api):

        async def held() -> Any:
            return [entry for entry in await asyncio.to_thread(client.audit, id) if entry["kind"] == "held"]

        await until(held, "the message was not held")
        assert client.message(id)["attempts"] == []
        await asyncio.to_thread(client.advance, 7200)
        await client.until(id, "delivered")


@pytest.mark.parametrize(
    ("sandbox", "attempts"),
    [
        ({"outage": True}, [("whatsapp", "connect")] * 3 + [("sms", None)]),
        ({"outage": "timeouts"}, [("whatsapp", "timeout"), ("sms", None)]),
        ({"outage": "slow_ms", "slow_ms": 50}, [("whatsapp", None)]),
    ],
)
async def test_an_account_can_be_set_to_fail_and_to_recover(
    api: Api, client: NotificationsClient, sandbox: dict[str, Any], attempts: list[tuple[str, str | None]]
) -> None:
    """An outage is a failed connection: retries, then the next channel. A timeout is an unknown outcome."""
    accounts = {one["channel"]: one["id"] for one in client.get("/notifications/v1/provider_accounts")["data"]}
    path = f"/notifications/v1/provider_accounts/{accounts['whatsapp']}"
    async with sending(api):
        client.post(path, {"sandbox": sandbox}, status=200, method="PATCH")
        found = await client.until(client.send(to="+910000000000"), "delivered")
        assert [(one["channel"], one["class"]) for one in found["attempts"]] == attempts
        assert all((one["outcome"] == "unknown") == (one["class"] == "timeout") for one in found["attempts"])
        recovered = client.post(path, {"sandbox": {"outage": False}}, status=200, method="PATCH")
        assert recovered["sandbox"]["outage"] is False
        assert (await client.until(client.send(to="+910000000000"), "delivered"))["channel"] == "whatsapp"


async def test_accounts_of_one_priority_share_the_messages(api: Api, client: NotificationsClient) -> None:
    """Each message goes first to the account that its id and the weights say; an account of a later priority gets none."""
    (first,) = [one for one in client.get(ACCOUNTS)["data"] if one["channel"] == "sms"]
    second = client.post(ACCOUNTS, {"channel": "sms", "kind": "sandbox", "weight": 3})
    client.post(ACCOUNTS, {"channel": "sms", "kind": "sandbox", "weight": 1000, "priority": 200})
    weights = {first["id"]: 1, second["id"]: 3}
    async with sending(api):
        sent = [client.send(to="+910000000000", channels=["sms"]) for _ in range(12)]
        for id in sent:
            found = await client.until(id, "delivered")
            assert [one["provider_account_id"] for one in found["attempts"]] == in_turn(id, weights)[:1]


async def test_quiet_hours_that_begin_between_two_steps_hold_the_next_one(
    api: Api, client: NotificationsClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first step is called before them, the fallback at their end, by the policy's word (failure case 22)."""
    quiet = {"start": "22:00", "end": "07:00", "time_zone": "Asia/Kolkata", "then": "wait"}
    client.policy(("whatsapp", "delivered", 1), ("sms", "delivered", 2), deadline_s=40_000, quiet_hours=quiet)
    begun = time.time() + 0.5
    ends = datetime.fromtimestamp(begun + 2.5, UTC)
    monkeypatch.setattr(
        "policies.fallback.quiet_until", lambda _, now: ends if begun <= now.timestamp() < ends.timestamp() else None
    )
    id = client.send(to="+910000000200")
    async with sending(api):
        found = await client.until(id, "delivered")
    first, second = found["attempts"]
    assert (first["channel"], second["channel"]) == ("whatsapp", "sms")
    assert datetime.fromisoformat(second["started_at"]) >= ends
    (held,) = [entry["detail"] for entry in client.audit(id) if entry["kind"] == "held"]
    assert held["why"] == "quiet_hours"


async def test_a_promotional_sms_in_the_evening_is_not_a_failure_of_the_provider(
    api: Api, client: NotificationsClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 21:05 IST the fallback to SMS is passed over before any call; the reason is the window (failure case 23)."""
    evening = datetime(2026, 11, 2, 21, 5, tzinfo=ZoneInfo("Asia/Kolkata"))
    monkeypatch.setattr(
        "spine.notifications.state_machine.decide.dlt_window_closed",
        lambda channel, address, category, _: dlt_window_closed(channel, address, category, evening),
    )
    dlt = {"entity_id": "1", "template_id": "2", "header": "SPINEX", "category": "promotional"}
    client.template(slug="offer", dlt=dlt)
    id = client.send(to="+910000000300", template="offer")
    async with sending(api):
        failed = await client.until(id, "failed")
    assert [(one["channel"], one["reason"]) for one in failed["reasons"]] == [
        ("whatsapp", "recipient"),
        ("sms", "window_closed"),
    ]
    assert [one["channel"] for one in failed["attempts"]] == ["whatsapp"]
