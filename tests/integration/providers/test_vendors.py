"""The adapters of single vendors against fakes of their APIs: what is sent, how refusals are classed, what callbacks say."""

import base64
import hashlib
import hmac
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from ipaddress import IPv4Network
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest

from providers.exotel import codes as exotel_codes
from providers.msg91 import codes as msg91_codes
from providers.postmark import codes as postmark_codes
from providers.protocol import Callback, CallbackResponse, MalformedCallback, SignatureInvalid
from providers.twilio import codes as twilio_codes
from providers.twilio.signature import is_signed
from providers.whatsapp_cloud import codes as meta_codes
from spine.kernel.http_client import HttpClient
from spine.kernel.settings import EgressSettings
from spine.notifications.rendering import Content
from tests.integration.providers.vendor_harnesses import (
    DLT,
    PUBLIC_URL,
    TEMPLATES,
    VENDORS,
    vendor_account,
    vendor_call,
    vendor_provider,
)
from tests.provider_fakes import exotel, msg91, postmark, twilio, whatsapp_cloud
from tests.provider_fakes.exotel import FakeExotel
from tests.provider_fakes.msg91 import FakeMsg91
from tests.provider_fakes.postmark import FakePostmark
from tests.provider_fakes.service import FakeService, Sent
from tests.provider_fakes.twilio import FakeTwilio
from tests.provider_fakes.whatsapp_cloud import FakeWhatsAppCloud


@pytest.fixture
async def http_client() -> AsyncIterator[HttpClient]:
    """An HTTP client that may connect to loopback."""
    settings = EgressSettings(egress_allow=(IPv4Network("127.0.0.0/8"),), connect_timeout_s=2, attempt_timeout_s=3)
    async with HttpClient(settings) as client:
        yield client


@pytest.fixture
async def services() -> AsyncIterator[Mapping[str, Any]]:
    """The fakes of all vendors."""
    made: dict[str, FakeService] = {
        "whatsapp_cloud": FakeWhatsAppCloud(),
        "twilio": FakeTwilio(),
        "msg91": FakeMsg91(),
        "exotel": FakeExotel(),
        "postmark": FakePostmark(),
    }
    async with AsyncExitStack() as stack:
        for service in made.values():
            await stack.enter_async_context(service.run())
        yield made
    for service in made.values():
        assert service.refused == []


def callback(
    body: bytes | dict[str, str], headers: Mapping[str, str] | None = None, url: str = f"{PUBLIC_URL}/x", **more: Any
) -> Callback:
    """A callback as the inbound route hands it on: header names in lower case."""
    raw = body if isinstance(body, bytes) else urlencode(body).encode()
    lowered = {name.lower(): value for name, value in (headers or {}).items()}
    return Callback("POST", url, lowered, raw, more.pop("query", {}), more.pop("token", None))


def read(kind: str, http_client: HttpClient, given: Callback) -> CallbackResponse:
    """What an adapter reads from a callback."""
    fakes = {"whatsapp_cloud": FakeWhatsAppCloud, "twilio": FakeTwilio, "msg91": FakeMsg91, "exotel": FakeExotel,
             "postmark": FakePostmark}  # fmt: skip
    account = vendor_account(kind, fakes[kind](url="http://127.0.0.1:9"))
    return vendor_provider(kind, http_client).receive(account, given)


@pytest.mark.parametrize("kind", VENDORS)
async def test_refused_credentials_are_config(kind: str, http_client: HttpClient, services: Mapping[str, Any]) -> None:
    """Wrong credentials are `config` for a send and for a check: another account may help, time does not (case 29)."""
    proof = {"whatsapp_cloud": "access_token", "twilio": "auth_token", "msg91": "authkey", "exotel": "api_token",
             "postmark": "server_token"}[kind]  # fmt: skip
    account = vendor_account(kind, services[kind], **{proof: "wrong-credential-000000001"})
    provider = vendor_provider(kind, http_client)
    result = await provider.send(account, vendor_call(kind))
    assert (result.outcome, result.failure) == ("rejected", "config")
    checked = await provider.check(account)
    assert checked is None or (checked.outcome, checked.failure) == ("rejected", "config")
    assert b"wrong-credential" not in orjson.dumps([result.raw, result.code])


@pytest.mark.parametrize("kind", VENDORS)
async def test_a_rate_limit_has_its_class(kind: str, http_client: HttpClient, services: Mapping[str, Any]) -> None:
    """Too many calls are `rate`; Meta's limit of one pair of numbers holds that recipient only."""
    account = vendor_account(kind, services[kind])
    result = await vendor_provider(kind, http_client).send(account, vendor_call(kind, "rate"))
    expected = ("recipient_rate", 6.0) if kind == "whatsapp_cloud" else ("rate", None)
    assert (result.failure, result.retry_after_s) == expected


async def test_whatsapp_sends_an_approved_template(http_client: HttpClient, services: Mapping[str, Any]) -> None:
    """Parameters are the variables in their order, each one line; our attempt id goes along to come back in statuses."""
    templates = {
        "whatsapp_cloud": {
            "name": "appt",
            "language": "en",
            "header": ["who"],
            "body": ["time", "list"],
            "buttons": ["code"],
        }
    }
    variables = {"time": "5:00\n PM", "who": "Priya", "list": [1, 2], "code": "a1"}
    call = vendor_call("whatsapp_cloud", provider_templates=templates, vars=variables)
    account = vendor_account("whatsapp_cloud", services["whatsapp_cloud"])
    assert (await vendor_provider("whatsapp_cloud", http_client).send(account, call)).outcome == "accepted"
    body = services["whatsapp_cloud"].sent[0].fields
    assert body["biz_opaque_callback_data"] == call.attempt_id
    parts = {
        one["type"]: [parameter["text"] for parameter in one["parameters"]] for one in body["template"]["components"]
    }
    assert parts == {"header": ["Priya"], "body": ["5:00 PM", "[1,2]"], "button": ["a1"]}


async def test_twilio_gets_a_validity_and_a_callback(http_client: HttpClient, services: Mapping[str, Any]) -> None:
    """The validity is the step's wait; the status callback names the attempt; a content template replaces the body."""
    account, provider = vendor_account("twilio", services["twilio"]), vendor_provider("twilio", http_client)
    call = vendor_call("twilio", wait_s=90, content=Content("Grüße 👍"))
    result = await provider.send(account, call)
    assert result.raw["segments"] == 1
    fields = services["twilio"].sent[0].fields
    assert (fields["Body"], fields["ValidityPeriod"], fields["From"]) == ("Grüße 👍", "90", twilio.SENDER)
    expected = f"{PUBLIC_URL}/notifications/v1/inbound/prv_1?attempt={call.attempt_id}#rc=5&rp=all"
    assert fields["StatusCallback"] == expected
    await provider.send(account, vendor_call("twilio", provider_templates=TEMPLATES, wait_s=10**6))
    fields = services["twilio"].sent[1].fields
    assert (orjson.loads(fields["ContentVariables"]), fields["ValidityPeriod"]) == ({"1": "5"}, "36000")


async def test_exotel_gets_the_registration(http_client: HttpClient, services: Mapping[str, Any]) -> None:
    """Entity, template and header of the template's registration go along; without one the account's sender is used."""
    account, provider = vendor_account("exotel", services["exotel"]), vendor_provider("exotel", http_client)
    call = vendor_call("exotel", dlt=DLT | {"header": "HEADER"}, content=Content("नमस्ते"))
    await provider.send(account, call)
    fields = services["exotel"].sent[0].fields
    expected = {"From": "HEADER", "DltEntityId": DLT["entity_id"], "DltTemplateId": DLT["template_id"],
                "SmsType": "transactional", "EncodingType": "unicode", "CustomField": call.attempt_id}  # fmt: skip
    assert {name: fields[name] for name in expected} == expected
    await provider.send(account, vendor_call("exotel"))
    assert services["exotel"].sent[1].fields["From"] == "SPINEX"


async def test_msg91_sends_no_text_of_ours(http_client: HttpClient, services: Mapping[str, Any]) -> None:
    """The flow holds the registered text and gets the variables; without a flow nothing is called."""
    account, provider = vendor_account("msg91", services["msg91"]), vendor_provider("msg91", http_client)
    result = await provider.send(account, vendor_call("msg91"))
    assert services["msg91"].sent[0].fields == {"mobiles": "919812345000", "VAR1": "5"}
    assert result.provider_message_id == services["msg91"].sent[0].id
    missing = await provider.send(account, vendor_call("msg91", provider_templates={}))
    assert (missing.failure, missing.code) == ("content", "provider_template_missing")
    unknown = {"msg91": {"template_id": "f00dcafe00", "variables": {}}}
    refused = await provider.send(account, vendor_call("msg91", provider_templates=unknown))
    assert (refused.outcome, refused.failure, refused.http_status) == ("rejected", "content", 200)


async def test_a_mail_goes_through_postmark_complete(http_client: HttpClient, services: Mapping[str, Any]) -> None:
    """Subject, both bodies, stream and our attempt id."""
    call = vendor_call("postmark")
    await vendor_provider("postmark", http_client).send(vendor_account("postmark", services["postmark"]), call)
    fields = services["postmark"].sent[0].fields
    assert (fields["Subject"], fields["TextBody"], fields["HtmlBody"]) == (
        "Grüße",
        call.content.text,
        call.content.html,
    )
    assert (fields["Metadata"], fields["MessageStream"]) == ({"attempt_id": call.attempt_id}, "outbound")


META: list[tuple[int, str]] = [
    (131016, "transient"), (131026, "recipient"), (131047, "policy"), (131048, "rate"), (131056, "recipient_rate"),
    (132001, "content"), (190, "config"), (210, "config"), (131042, "config"), (131051, "content"), (424242, "content"),
]  # fmt: skip
TWILIO: list[tuple[int, str]] = [
    (21211, "recipient"), (21610, "policy"), (20003, "config"), (21408, "config"), (30007, "content"), (30008, "transient"),
    (20429, "rate"), (30036, "recipient"), (424242, "recipient"),
]  # fmt: skip


def test_codes_have_their_classes() -> None:
    """The tables of providers.md. Two codes that blogs mistake for each other, 131051 and 131056, among them."""
    for code, failure in META:
        assert meta_codes.class_of(code) == failure, code
    for code, failure in TWILIO:
        assert twilio_codes.class_of(code) == failure, code
    assert meta_codes.class_of(424242, is_transient=True) == meta_codes.class_of(None, http_status=503) == "transient"
    assert meta_codes.class_of(None, http_status=401) == twilio_codes.class_of(None, 403) == "config"
    assert [meta_codes.opt_out_of(131050), twilio_codes.opt_out_of(21610), twilio_codes.opt_out_of(21211)] == [
        "marketing",
        "*",
        None,
    ]
    assert [msg91_codes.class_of(418, ""), msg91_codes.class_of(200, "Invalid authkey")] == ["config", "config"]
    assert [msg91_codes.class_of(200, "shipping address wrong"), msg91_codes.class_of(502, "")] == [
        "recipient",
        "transient",
    ]
    assert [postmark_codes.class_of(406, 422), postmark_codes.class_of(10, 401), postmark_codes.class_of(None, 500)] == [
        "recipient", "config", "transient"]  # fmt: skip
    assert [postmark_codes.class_of_bounce(kind) for kind in ("HardBounce", "SoftBounce", "SpamNotification")] == [
        "recipient", None, "content"]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "detailed", "state", "failure"),
    [
        ("sent", "DELIVERED_TO_HANDSET", "delivered", "recipient"),
        ("sent", "SUBMITTED_TO_OPERATOR", "sent", "recipient"),
        ("failed", "SOMETHING_NEW", "failed", "recipient"),
        ("failed_dnd", "FAILED_DND", "failed", "policy"),
        ("failed", "DLT_HEADER_NOT_FOUND", "failed", "config"),
        ("failed", "FAILED_TEMPLATE_MISMATCH", "failed", "content"),
        ("queued", "", "queued", "recipient"),
    ],
)
def test_exotel_states_are_read_from_texts(status: str, detailed: str, state: str, failure: str) -> None:
    """The detail decides where it is known, else the status; the numbers, which differ between documents, never (case 18)."""
    assert exotel_codes.state_of(status, detailed) == state
    assert exotel_codes.class_of_failure(status, detailed) == failure


async def test_meta_signs_the_raw_body(http_client: HttpClient) -> None:
    """The vector of providers.md; a body that was parsed and written again, or another secret, is refused (case 15)."""
    vector = b'{"t":"caf\\u00e9"}'
    digest = "a7355b9c4448277863fd9e6f1b832593505392132a751892fa38db567008fecb"
    assert hmac.new(b"test-app-secret", vector, hashlib.sha256).hexdigest() == digest
    body = whatsapp_cloud.webhook({"messages": [whatsapp_cloud.message("wamid.1", "919812345000", "ok 👍")]})
    escaped = body.replace("👍".encode(), b"\\ud83d\\udc4d")
    assert orjson.loads(escaped) == orjson.loads(body)
    headers = whatsapp_cloud.signed(escaped)
    assert read("whatsapp_cloud", http_client, callback(escaped, headers)).reports[0].text == "ok 👍"
    for refused, signature in ((body, headers), (escaped, whatsapp_cloud.signed(escaped, "other")), (escaped, {})):
        with pytest.raises(SignatureInvalid):
            read("whatsapp_cloud", http_client, callback(refused, signature))


async def test_a_batch_of_meta_is_read_item_by_item(http_client: HttpClient) -> None:
    """Three statuses, a reply, a change of number, and things unknown or broken: each is read by itself (case 16)."""
    body = whatsapp_cloud.webhook(
        {"statuses": [
            whatsapp_cloud.status("wamid.1", "delivered", "att_1"),
            whatsapp_cloud.status("wamid.2", "failed", code=131050),
            whatsapp_cloud.status("wamid.3", "warmed_up"),
            {"no": "id"},
        ]},
        {"messages": [
            whatsapp_cloud.message("wamid.4", "919812345000", "Yes", "wamid.1"),
            whatsapp_cloud.moved("wamid.5", "919812345000", "919812345001"),
            {"id": "wamid.6", "from": "919812345000", "type": "order", "order": {}},
            "nonsense",
        ]},
    )  # fmt: skip
    reports = read("whatsapp_cloud", http_client, callback(body, whatsapp_cloud.signed(body))).reports
    assert [(one.provider_message_id, one.status) for one in reports] == [
        ("wamid.1", "delivered"), ("wamid.2", "failed"), ("wamid.3", "warmed_up"), ("wamid.4", "replied"),
        ("wamid.5", "number_changed"), ("wamid.6", "replied"),
    ]  # fmt: skip
    delivered, failed, _, reply, moved, order = reports
    assert delivered.attempt_id == "att_1"
    assert (failed.failure, failed.code, failed.opt_out) == ("policy", "131050", "marketing")
    assert (reply.in_reply_to, reply.sender, reply.text) == ("wamid.1", "+919812345000", "Yes")
    assert (moved.sender, moved.new_address) == ("+919812345000", "+919812345001")
    assert order.text == "[order]"


async def test_meta_proves_its_setup_call(http_client: HttpClient) -> None:
    """The raw challenge for the token that was agreed on; 401 for another token, and an error without a challenge."""

    def setup(**query: str) -> CallbackResponse:
        asked = {
            "hub.mode": "subscribe",
            "hub.verify_token": whatsapp_cloud.VERIFY_TOKEN,
            "hub.challenge": "1158201444",
        }
        given = {name: value for name, value in (asked | query).items() if value}
        return read("whatsapp_cloud", http_client, Callback("GET", f"{PUBLIC_URL}/x", {}, b"", given))

    answer = setup()
    assert (answer.content, answer.media_type, answer.reports) == (b"1158201444", "text/plain", ())
    with pytest.raises(SignatureInvalid):
        setup(**{"hub.verify_token": "guess"})
    with pytest.raises(MalformedCallback):
        setup(**{"hub.challenge": ""})


def test_the_vectors_of_twilio_hold() -> None:
    """SHA-1, and SHA-256 where the header says so; with or without the port; not for another field, URL or token."""
    url = "https://spine.example/in/twilio/acc1?k=1"
    fields = [
        ("MessageSid", "SM00000000000000000000000000000001"),
        ("MessageStatus", "delivered"),
        ("To", "+919812345678"),
    ]
    sha1, sha256 = "W6i9oK+OmWYkZwZ1M70LGsH8QgI=", "BgLQw3AOoaqtfQFEV8syDUiGQPAVlaLdMWyAMyyI0Jg="
    token, header = "test-auth-token", "key=abc,algorithm=HMAC_SHA256"
    assert is_signed(token, url, fields, sha1)
    assert is_signed(token, url.replace("example/", "example:443/"), fields, sha1)
    assert is_signed(token, url, fields, sha256, header)
    signed = url.replace("example/", "example:443/") + "".join(name + value for name, value in fields)
    with_port = base64.b64encode(hmac.new(token.encode(), signed.encode(), hashlib.sha1).digest()).decode()
    assert is_signed(token, url, fields, with_port)
    assert not is_signed(token, url, fields, sha256)
    assert not is_signed(token, url, fields, sha1, header)
    assert not is_signed(token, url.replace("k=1", "k=2"), fields, sha1)
    assert not is_signed(token, url, [*fields, ("Added", "1")], sha1)
    assert not is_signed("other", url, fields, sha1)
    assert not is_signed(token, url, fields, "")
    assert not is_signed(token, url, fields, "ü")


async def test_twilio_reports_and_replies(http_client: HttpClient) -> None:
    """A status names its attempt by the query, a failure has its class, a reply its sender; the answer is empty TwiML."""
    url = f"{PUBLIC_URL}/notifications/v1/inbound/prv_1?attempt=att_1"
    fields = {"MessageSid": "SM1", "MessageStatus": "undelivered", "ErrorCode": "30005", "New": "field"}
    given = callback(fields, twilio.signed(url, fields), url, query={"attempt": "att_1"})
    answer = read("twilio", http_client, given)
    assert (answer.media_type, answer.content) == ("text/xml", b'<?xml version="1.0" encoding="UTF-8"?><Response/>')
    (report,) = answer.reports
    assert (report.attempt_id, report.status, report.failure, report.code) == ("att_1", "failed", "recipient", "30005")
    url = f"{PUBLIC_URL}/notifications/v1/inbound/prv_1"
    fields = {"MessageSid": "SM2", "From": "+919812345000", "Body": "ARRET 👍", "OptOutType": "STOP", "NumMedia": "0"}
    (reply,) = read("twilio", http_client, callback(fields, twilio.signed(url, fields), url)).reports
    assert (reply.status, reply.sender, reply.wish, reply.text) == ("replied", "+919812345000", "stop", "ARRET 👍")
    for signature in (twilio.signed(f"{url}/", fields), twilio.signed(url, fields, "other"), {}):
        with pytest.raises(SignatureInvalid):
            read("twilio", http_client, callback(fields, signature, url))


async def test_msg91_reports_in_its_versions(http_client: HttpClient) -> None:
    """A form whose field is JSON, and flat JSON; two numbers of one request are two messages (case 17)."""
    token = msg91.CALLBACK_TOKEN
    form = msg91.report("346613:919812345000", "1", "2026-11-26 10:06:20", ("919812345001", "9"))
    first, second = read("msg91", http_client, callback(form, token=token)).reports
    assert (first.provider_message_id, first.status) == ("346613:919812345000", "delivered")
    assert (second.provider_message_id, second.status, second.failure) == ("346613:919812345001", "failed", "policy")
    flat = orjson.dumps({"date": "2026-11-26 09:58:16", "number": "919812345000", "requestId": "346613", "status": "2"})
    (report,) = read("msg91", http_client, callback(flat, token=token)).reports
    assert (report.status, report.failure, report.reported_at) == ("failed", "recipient", "2026-11-26 09:58:16")
    for malformed in (b"", b"data=no", b"[1]", b"data=%5B1%5D"):
        with pytest.raises(MalformedCallback):
            read("msg91", http_client, callback(malformed, token=token))


@pytest.mark.parametrize("kind", ["msg91", "exotel", "postmark"])
async def test_an_unsigned_callback_needs_the_token(kind: str, http_client: HttpClient) -> None:
    """The token in the path stands for a signature: without it, with another or with a part of it, nothing is read."""
    token: str = {"msg91": msg91.CALLBACK_TOKEN, "exotel": exotel.CALLBACK_TOKEN, "postmark": postmark.CALLBACK_TOKEN}[
        kind
    ]
    body = {"msg91": urlencode(msg91.report("1:91", "1")).encode(), "exotel": b"SmsSid=1&Status=sent",
            "postmark": b'{"RecordType": "Open", "MessageID": "m1"}'}[kind]  # fmt: skip
    assert len(read(kind, http_client, callback(body, token=token)).reports) == 1
    for wrong in (None, "", token[:-1], token + "x", "ü" * 24):
        with pytest.raises(SignatureInvalid):
            read(kind, http_client, callback(body, token=wrong))


async def test_postmark_webhooks(http_client: HttpClient) -> None:
    """Delivery, opening, hard and soft bounces, a complaint, and a manual suppression, which is an opt-out."""
    sent = Sent("m1", "att_1", {"Metadata": {"attempt_id": "att_1"}})

    def report(kind: str, **fields: Any) -> tuple[Any, ...]:
        (one,) = read(
            "postmark", http_client, callback(postmark.webhook(sent, kind, **fields), token=postmark.CALLBACK_TOKEN)
        ).reports
        assert (one.attempt_id, one.provider_message_id) == ("att_1", "m1")
        return one.status, one.failure, one.opt_out

    assert report("Delivery", DeliveredAt="2026-11-26T10:00:00Z") == ("delivered", None, None)
    assert report("Open", ReceivedAt="2026-11-26T10:00:00Z") == ("read", None, None)
    assert report("Bounce", Type="HardBounce", TypeCode=1) == ("failed", "recipient", None)
    assert report("Bounce", Type="SoftBounce", TypeCode=4096) == ("deferred", None, None)
    assert report("SpamComplaint", Type="SpamComplaint") == ("opted_out", None, "*")
    assert report("SubscriptionChange", SuppressSending=True, SuppressionReason="ManualSuppression") == (
        "opted_out",
        None,
        "*",
    )
    assert report("SubscriptionChange", SuppressSending=True, SuppressionReason="HardBounce") == (
        "opted_out",
        None,
        None,
    )
    assert report("SubscriptionChange", SuppressSending=False) == ("postmark_SubscriptionChange", None, None)


@pytest.mark.parametrize("kind", ["twilio", "exotel"])
async def test_a_message_can_be_asked_about(kind: str, http_client: HttpClient, services: Mapping[str, Any]) -> None:
    """The state that the provider holds, as a report; None for an unknown message."""
    service, provider = services[kind], vendor_provider(kind, http_client)
    account = vendor_account(kind, service)
    result = await provider.send(account, vendor_call(kind))
    assert result.provider_message_id is not None
    service.sent[0].status = "delivered" if kind == "twilio" else "DELIVERED_TO_HANDSET"
    report = await provider.poll(account, result.provider_message_id)
    assert report is not None
    assert (report.provider_message_id, report.status) == (result.provider_message_id, "delivered")
    assert await provider.poll(account, "SM" + "f" * 32) is None
