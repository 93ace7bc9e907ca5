"""Messages through the adapters of single vendors, from POST to the webhook: fakes of the vendors send and call back."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.api import Api
from tests.integration.providers.vendor_harnesses import CONFIGS, DLT, FAKES, TEMPLATES, VENDORS
from tests.message_engine import NotificationsClient, fetch_value, sending, until
from tests.provider_fakes import msg91, postmark, whatsapp_cloud
from tests.provider_fakes.service import FakeService

ACCOUNTS = "/notifications/v1/provider_accounts"
PHONE, OTHER_PHONE = "+919812345000", "+919812345007"
CHANNELS = {"whatsapp_cloud": "whatsapp", "twilio": "sms", "msg91": "sms", "exotel": "sms", "postmark": "email"}


class Vendor:
    """One vendor: its fake, and an account of a live workspace at it."""

    def __init__(self, kind: str, client: NotificationsClient, api: Api, service: Any) -> None:
        self.kind, self.client, self.api, self.service = kind, client, api, service
        body = {"kind": kind, "channel": CHANNELS[kind], "credentials": service.credentials(), "config": CONFIGS[kind]}
        self.account = client.post(ACCOUNTS, body)
        self.template = f"registered_{kind}"
        client.template(slug=self.template, provider_templates=TEMPLATES, dlt=DLT)
        client.policy((CHANNELS[kind], "delivered", 600), slug=self.template, deadline_s=700)

    def send(self, to: str | None = None, **more: Any) -> str:
        """Send a message by this vendor's channel."""
        to = to or ("meera@example.com" if self.kind == "postmark" else PHONE)
        return self.client.send(to=to, template=self.template, policy=self.template, **more)

    @property
    def url(self) -> str:
        """The URL of its callbacks, with the token where it has one."""
        return str(self.account["callback_url"]).replace(
            "{callback_token}", self.service.credentials().get("callback_token", "")
        )

    async def report(self, n: int, state: str) -> int:
        """Call back with a state of the n-th message that was sent, in the vendor's own form. Returns the status."""
        sent = self.service.sent[n]
        failed = state == "failed"
        if self.kind == "twilio":
            return int(
                (await self.service.report(sent, "undelivered" if failed else state, 30005 if failed else None))[0]
            )
        if self.kind == "exotel":
            detail = "FAILED_NUMBER" if failed else "DELIVERED_TO_HANDSET" if state == "delivered" else "SUBMITTED"
            return int((await self.service.report(sent, "failed" if failed else "sent", detail))[0])
        if self.kind == "whatsapp_cloud":
            status = whatsapp_cloud.status(sent.id, state, sent.attempt_id, 131026 if failed else None)
            return await self.meta({"statuses": [status]})
        if self.kind == "msg91":
            return int((await self.service.call_back(self.url, msg91.report(sent.id, "2" if failed else "1")))[0])
        kind = {"failed": "Bounce", "delivered": "Delivery"}[state]
        body = postmark.webhook(sent, kind, Type="HardBounce")
        return int((await self.service.call_back(self.url, body, {"Content-Type": "application/json"}))[0])

    async def meta(self, *values: dict[str, Any]) -> int:
        """Send a webhook of Meta with these changes."""
        body = whatsapp_cloud.webhook(*values)
        return int((await self.service.call_back(self.url, body, whatsapp_cloud.signed(body)))[0])


@pytest.fixture
async def vendor(request: pytest.FixtureRequest, api: Api, live: NotificationsClient) -> AsyncIterator[Vendor]:
    """The vendor that the test names."""
    service: FakeService = FAKES[request.param]()
    async with service.run():
        yield Vendor(request.param, live, api, service)
    assert service.refused == []


def only(*kinds: str) -> pytest.MarkDecorator:
    """Run a test for these vendors."""
    return pytest.mark.parametrize("vendor", kinds, indirect=True)


@only(*VENDORS)
async def test_a_message_is_sent_and_delivered(vendor: Vendor, api: Api) -> None:
    """One call; its receipt, twice, delivers the message once; a failure that comes later changes nothing (cases 1 to 3)."""
    id = vendor.send()
    async with sending(api):
        await vendor.client.until(id, "sent")
        assert [await vendor.report(0, "delivered") for _ in range(2)] == [200, 200]
        await vendor.client.until(id, "delivered")
        assert await vendor.report(0, "failed") == 200
    message = vendor.client.message(id)
    (attempt,) = message["attempts"]
    assert (message["status"], attempt["provider"], len(vendor.service.sent)) == ("delivered", vendor.kind, 1)
    assert attempt["provider_message_id"] == vendor.service.sent[0].id
    assert vendor.client.event_names(id) == ["created", "sent", "delivered"]


@only(*VENDORS)
async def test_a_receipt_may_come_before_the_response_is_known(vendor: Vendor, api: Api) -> None:
    """A call whose response is lost is not repeated: its receipt decides, by our reference or by the number (case 2)."""
    lost = "lost@example.com" if vendor.kind == "postmark" else "+919812345003"
    id = vendor.send(to=lost)

    async def answered() -> Any:
        return [one for one in (await asyncio.to_thread(vendor.client.message, id))["attempts"] if one["outcome"]]

    async with sending(api):
        (attempt,) = await until(answered, "the call never ended")
        assert attempt["outcome"] == "unknown"
        assert await vendor.report(0, "delivered") == 200
        if (
            vendor.kind == "msg91"
        ):  # it echoes nothing of ours, and its id is in the lost response: the receipt is parked
            parked = "SELECT count(*) FROM spine.receipts WHERE attempt_id IS NULL AND provider_account_id = $1"
            assert await fetch_value(api, parked, vendor.account["id"]) == 1
            return
        await vendor.client.until(id, "delivered")
    assert len(vendor.service.sent) == 1


@only(*VENDORS)
async def test_a_reported_failure_has_its_class_and_ends_the_step(vendor: Vendor, api: Api) -> None:
    """A failure by receipt fails the message at once, with the provider's code and the class that its table gives."""
    id = vendor.send()
    async with sending(api):
        await vendor.client.until(id, "sent")
        assert await vendor.report(0, "failed") == 200
        message = await vendor.client.until(id, "failed")
    (attempt,) = message["attempts"]
    code = {
        "whatsapp_cloud": "131026",
        "twilio": "30005",
        "msg91": "2",
        "exotel": "FAILED_NUMBER",
        "postmark": "HardBounce",
    }
    assert (attempt["class"], attempt["provider_code"]) == ("recipient", code[vendor.kind])


@only(*VENDORS)
async def test_callbacks_without_proof_are_refused(vendor: Vendor, api: Api, provider: httpx.Client) -> None:
    """401, whatever the body; a GET as well, except Meta's set-up call with its token (case 15)."""
    account = vendor.account["id"]
    for path in (
        f"/notifications/v1/inbound/{account}",
        f"/notifications/v1/inbound/{account}/guessed-token-000000000001",
    ):
        for body in (b"{}", b"", b"\xff\x00", b"MessageSid=1&MessageStatus=delivered"):
            answer = await asyncio.to_thread(provider.post, path, content=body)
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    path = f"/notifications/v1/inbound/{account}"
    assert (await asyncio.to_thread(provider.get, path)).status_code in {400, 401}
    setup = {"hub.mode": "subscribe", "hub.verify_token": whatsapp_cloud.VERIFY_TOKEN, "hub.challenge": "42"}
    answer = await asyncio.to_thread(provider.get, path, params=setup)
    assert (answer.status_code == 200 and answer.text == "42") is (vendor.kind == "whatsapp_cloud")


async def reply(vendor: Vendor, id: str, sender: str, text: str, **more: str) -> int:
    """A message from a person, in the vendor's form."""
    if vendor.kind == "twilio":
        return int((await vendor.service.reply(vendor.url, id, sender, text, **more))[0])
    return await vendor.meta({"messages": [whatsapp_cloud.message(id, sender.removeprefix("+"), text, **more)]})


@only("twilio", "whatsapp_cloud")
async def test_a_reply_finds_its_message(vendor: Vendor, api: Api) -> None:
    """By the message that it names, else as the newest one to that number over that account; repetitions are one event."""
    async with sending(api):
        ids = []
        for to in (PHONE, OTHER_PHONE, PHONE):
            ids.append(vendor.send(to=to))
            await vendor.client.until(ids[-1], "sent")
        first = vendor.client.message(ids[0])["attempts"][0]["provider_message_id"]
        named = {"OriginalRepliedMessageSid": first} if vendor.kind == "twilio" else {"replied_to": first}
        assert await reply(vendor, "r1", PHONE, "To the first", **named) == 200
        assert [await reply(vendor, "r2", PHONE, "To the newest") for _ in range(2)] == [200, 200]
        assert await reply(vendor, "r3", "+919812345008", "A stranger") == 200
    events = {event["data"]["reply"]: event["data"] for event in vendor.client.events("message.replied")}
    assert len(vendor.client.events("message.replied")) == 2
    assert events["To the first"]["message_id"] == ids[0]
    assert (events["To the newest"]["message_id"], events["To the newest"]["reply_id"]) == (ids[2], "r2")


@only("twilio", "whatsapp_cloud")
async def test_stop_holds_for_a_number_without_a_contact(vendor: Vendor, api: Api) -> None:
    """STOP to a message sent `to` a number opts that number out: it gets a contact, and the next message goes nowhere (19)."""
    async with sending(api):
        first = vendor.send()
        await vendor.client.until(first, "sent")
        assert [await reply(vendor, f"r{n}", PHONE, "Stop!") for n in range(2)] == [200, 200]
        (changed,) = vendor.client.events("preference.changed")
        (created,) = vendor.client.events("contact.created")
        contact_id = created["data"]["id"]
        assert (created["data"]["phone_e164"], changed["data"]["contact_id"]) == (PHONE, contact_id)
        assert changed["data"] | {"category": "marketing", "source": "reply", "opted_out": True} == changed["data"]
        second = await vendor.client.until(vendor.send(), "failed")
        assert (second["contact_id"], [one["reason"] for one in second["reasons"]]) == (contact_id, ["opted_out"])
        assert len(vendor.service.sent) == 1
        assert await reply(vendor, "r9", PHONE, "START") == 200
        await vendor.client.until(vendor.send(), "sent")


@only("twilio")
async def test_the_providers_own_word_for_stop_counts(vendor: Vendor, api: Api) -> None:
    """Twilio's OptOutType decides, though the text is no keyword of ours."""
    contact = vendor.client.contact(phone=PHONE)
    async with sending(api):
        await vendor.client.until(vendor.send(), "sent")
        assert await reply(vendor, "r1", PHONE, "ARRET", OptOutType="STOP") == 200
    (changed,) = vendor.client.events("preference.changed")
    assert (changed["data"]["contact_id"], changed["data"]["source"]) == (contact, "reply")


@only("whatsapp_cloud")
async def test_an_opt_out_is_taken_over_from_the_provider(vendor: Vendor, api: Api) -> None:
    """131050 in a status says that the person stopped marketing: it is noted for that category, by the provider's word."""
    contact = vendor.client.contact(phone=PHONE)
    async with sending(api):
        id = vendor.send()
        await vendor.client.until(id, "sent")
        sent = vendor.service.sent[0]
        assert (
            await vendor.meta({"statuses": [whatsapp_cloud.status(sent.id, "failed", sent.attempt_id, 131050)]}) == 200
        )
        message = await vendor.client.until(id, "failed")
    assert message["attempts"][0]["class"] == "policy"
    (changed,) = vendor.client.events("preference.changed")
    expected = {
        "contact_id": contact,
        "channel": "whatsapp",
        "category": "marketing",
        "source": "provider",
        "opted_out": True,
    }
    assert changed["data"] | expected == changed["data"]
    assert changed["actor"] == {"type": "provider", "id": vendor.account["id"]}


@only("whatsapp_cloud")
async def test_a_short_wait_is_warned_of(vendor: Vendor) -> None:
    """WhatsApp goes on for 30 days, unless the template at Meta has a time to live of its own: then that is the measure."""
    warned = vendor.client.message(vendor.send())["warnings"]
    assert [(one["code"], one["channel"]) for one in warned] == [("wait_below_time_to_live", "whatsapp")]
    templates = {"whatsapp_cloud": TEMPLATES["whatsapp_cloud"] | {"ttl_s": 600}}
    vendor.client.template(slug=vendor.template, provider_templates=templates)
    assert vendor.client.message(vendor.send())["warnings"] == []


@only("whatsapp_cloud")
async def test_a_change_of_number_is_suggested(vendor: Vendor, api: Api) -> None:
    """An event and a timeline entry name the old and the new number; the contact keeps its own (case 21)."""
    contact = vendor.client.contact(phone=PHONE)
    async with sending(api):
        await vendor.client.until(vendor.send(), "sent")
        moved = whatsapp_cloud.moved("wamid.moved", PHONE.removeprefix("+"), OTHER_PHONE.removeprefix("+"))
        assert [await vendor.meta({"messages": [moved]}) for _ in range(2)] == [200, 200]
    (event,) = vendor.client.events("contact.change_suggested")
    assert event["data"] == {"contact_id": contact, "field": "phone", "old": PHONE, "new": OTHER_PHONE}
    assert vendor.client.get(f"/crm/v1/contacts/{contact}")["phone_e164"] == PHONE
    kinds = [one["kind"] for one in vendor.client.get(f"/crm/v1/contacts/{contact}/timeline")["data"]]
    assert "contact.change_suggested" in kinds


@only("twilio", "exotel")
async def test_a_provider_is_asked_when_no_receipt_came(vendor: Vendor, api: Api) -> None:
    """After the wait its state is read, once: delivered is delivered, and silence is a failure as before (case 27)."""
    vendor.client.policy(("sms", "delivered", 1), slug=vendor.template, deadline_s=700)
    delivered, silent = vendor.send(), vendor.send(to=OTHER_PHONE)
    async with sending(api):
        for id in (delivered, silent):
            await vendor.client.until(id, "sent")
        by_number = {one.fields["To"]: one for one in vendor.service.sent}
        by_number[PHONE].status = "delivered" if vendor.kind == "twilio" else "DELIVERED_TO_HANDSET"
        await vendor.client.until(delivered, "delivered")
        failed = await vendor.client.until(silent, "failed")
    assert [one["reason"] for one in failed["reasons"]] == ["delivery_unknown"]
    assert len(vendor.service.sent) == 2
    for id in (delivered, silent):
        assert [one["kind"] for one in vendor.client.audit(id)].count("attempt.polled") == 1


@only(*VENDORS)
async def test_tokens_and_credentials_are_shown_nowhere(
    vendor: Vendor, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    """No credential is in an account, an event, a message, its timeline, a log line or a stored receipt (case 29)."""
    id = vendor.send()
    async with sending(api):
        await vendor.client.until(id, "sent")
        await vendor.report(0, "delivered")
        await vendor.client.until(id, "delivered")
        await asyncio.to_thread(vendor.client.post, f"{ACCOUNTS}/{vendor.account['id']}/test", {}, status=200)
        refused = await asyncio.to_thread(
            vendor.client.post, f"{ACCOUNTS}/{vendor.account['id']}", {"credentials": {"api_url": "nowhere"}},
            status=422, method="PATCH",
        )  # fmt: skip
    query = "SELECT string_agg(r::text, '') FROM spine.receipts r WHERE provider_account_id = $1"
    rows = await fetch_value(api, query, vendor.account["id"])
    stored = (
        "SELECT string_agg(e::text || convert_from(e.body, 'UTF8'), '') FROM spine.events e WHERE workspace_id = $1"
    )
    workspace = "SELECT workspace_id FROM spine.messages WHERE id = $1"
    events = await fetch_value(api, stored, await fetch_value(api, workspace, id))
    everything = str([vendor.client.get(f"{ACCOUNTS}/{vendor.account['id']}"), vendor.client.message(id), vendor.client.audit(id),
                      refused, rows, events, capsys.readouterr()])  # fmt: skip
    assert "message.delivered" in everything
    shown = {"api_url", "account_sid"}
    for name, secret in vendor.service.credentials().items():
        assert name in shown or secret not in everything, name
    assert ("{callback_token}" in vendor.account["callback_url"]) is (vendor.kind in {"msg91", "exotel", "postmark"})
