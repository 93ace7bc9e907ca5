"""The conformance suite of the Provider protocol, run against every adapter, and the laws of single adapters."""

import email
import email.header
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from ipaddress import IPv4Network
from pathlib import Path
from typing import get_args

import asyncpg
import orjson
import pytest

from products.notifications.providers import open_adapters
from providers.http import HttpProvider, find
from providers.protocol import Callback, MalformedCallback, SignatureInvalid
from providers.smtp import SmtpProvider
from spine.kernel.http_client import HttpClient
from spine.kernel.settings import EgressSettings, TemplateSettings
from spine.notifications.account_models import HttpConfig
from spine.notifications.provider_kinds import PROVIDER_KINDS, KindName
from spine.notifications.rendering import parse_bodies
from spine.webhooks.signing import sign
from tests.integration.providers.provider_fakes import (
    OUTCOMES,
    SECRET,
    FakeMailServer,
    Harness,
    http_account,
    http_harness,
    make_call,
    run_mail_server,
    sandbox_harness,
    smtp_harness,
)
from tests.integration.providers.vendor_harnesses import VENDORS, vendor_harness


@pytest.fixture
async def http_client() -> AsyncIterator[HttpClient]:
    """An HTTP client that may connect to loopback."""
    async with HttpClient(
        EgressSettings(egress_allow=(IPv4Network("127.0.0.0/8"),), connect_timeout_s=2, attempt_timeout_s=3)
    ) as client:
        yield client


@pytest.fixture
async def mail_server() -> AsyncIterator[FakeMailServer]:
    """A mail server on a free port."""
    async with run_mail_server() as server:
        yield server


HARNESSES = ("sandbox", "smtp", "http", *VENDORS)


async def test_every_adapter_is_tested(http_client: HttpClient, database: str) -> None:
    """The kinds that accounts may have, the adapters and the conformance suite name the same providers."""
    async with asyncpg.create_pool(database, min_size=1, max_size=1) as pool:
        adapters = open_adapters(pool, http_client, "https://spine.example")
    assert set(adapters) == set(PROVIDER_KINDS) == set(get_args(KindName)) == set(HARNESSES)


@pytest.fixture(params=HARNESSES)
async def harness(
    request: pytest.FixtureRequest, http_client: HttpClient, mail_server: FakeMailServer, module_database: str
) -> AsyncIterator[Harness]:
    """Each adapter in turn."""
    async with AsyncExitStack() as stack:
        if request.param == "sandbox":
            yield await stack.enter_async_context(sandbox_harness(module_database))
        elif request.param == "http":
            yield await stack.enter_async_context(http_harness(http_client))
        elif request.param in VENDORS:
            yield await stack.enter_async_context(vendor_harness(request.param, http_client))
        else:
            yield smtp_harness(http_client, mail_server)


def signed_headers(body: bytes, secret: str = SECRET, age_s: int = 0) -> dict[str, str]:
    """The headers of a signed callback."""
    at_s = int(time.time()) - age_s
    return {"webhook-id": "1", "webhook-timestamp": str(at_s), "webhook-signature": sign("1", at_s, body, [secret])}


def signed_callback(body: bytes) -> Callback:
    """A signed callback."""
    return Callback("POST", "https://spine.example/", signed_headers(body), body, {})


async def test_an_accepted_call_has_a_provider_id_and_our_reference(harness: Harness) -> None:
    """The result is accepted, with the provider's id, and the service received the attempt's id."""
    result, call, _ = await harness.send("accepted")
    assert (result.outcome, result.failure) == ("accepted", None)
    assert result.provider_message_id
    assert await harness.count_arrivals(call.attempt_id) == 1


@pytest.mark.parametrize("outcome", ["recipient", "transient"])
async def test_a_rejection_has_its_class(harness: Harness, outcome: str) -> None:
    """Unreachable recipients and transient failures have different classes, each with the provider's code."""
    result, call, _ = await harness.send(outcome)
    assert (result.outcome, result.failure) == ("rejected", outcome)
    assert result.code
    assert await harness.count_arrivals(call.attempt_id) == 0


async def test_a_check_tells_whether_the_credentials_are_taken(harness: Harness) -> None:
    """A check sends nothing. It is accepted, or None where the provider has no such call; unreachable is `connect`."""
    account, call = harness.prepare("accepted")
    result = await harness.provider.check(account)
    assert result is None or (result.outcome, result.failure) == ("accepted", None)
    assert await harness.count_arrivals(call.attempt_id) == 0
    if result is not None:
        gone = await harness.provider.check(harness.prepare("unreachable")[0])
        assert gone is not None
        assert (gone.outcome, gone.failure) == ("rejected", "connect")


async def test_an_unreachable_provider_is_a_connect_failure(harness: Harness) -> None:
    """Nothing can have been sent, and the class says that a retry or another account may help."""
    result, call, _ = await harness.send("unreachable")
    assert (result.outcome, result.failure) == ("rejected", "connect")
    assert await harness.count_arrivals(call.attempt_id) == 0


async def test_a_lost_response_leaves_the_outcome_unknown(harness: Harness) -> None:
    """Bytes were sent and no response came: unknown, never rejected, because the call may have been accepted."""
    result, call, _ = await harness.send("lost")
    assert (result.outcome, result.provider_message_id) == ("unknown", None)
    assert await harness.count_arrivals(call.attempt_id) == 1


async def test_a_repeated_attempt_counts_once_where_promised(harness: Harness) -> None:
    """A kind that `dedupes` accepts an attempt once and gives the same result; workers repeat calls of such kinds only."""
    result, call, account = await harness.send("accepted")
    if not PROVIDER_KINDS[harness.provider.kind].dedupes:
        pytest.skip("this kind does not know repeated calls")
    assert await harness.provider.send(account, call) == result
    assert await harness.count_arrivals(call.attempt_id) == 1


async def test_raw_holds_no_secret_and_no_content(harness: Harness) -> None:
    """`raw` is stored in the database and in the timeline."""
    for outcome in OUTCOMES:
        result, call, _ = await harness.send(outcome)
        raw = orjson.dumps(result.raw).decode()
        assert SECRET not in raw
        assert call.content.text not in raw


async def test_an_unsigned_callback_is_refused(harness: Harness) -> None:
    """A callback with an old signature, another's signature or none is refused."""
    account, call = harness.prepare("accepted")
    body = orjson.dumps({"attempt_id": call.attempt_id, "id": "m1", "status": "delivered", "timestamp": "1"})
    for headers in (signed_headers(body, age_s=900), signed_headers(body, "whsec_" + "B" * 32), {}):
        with pytest.raises(SignatureInvalid):
            harness.provider.receive(account, Callback("POST", "https://spine.example/", headers, body, {}))


async def test_a_signed_report_is_parsed(http_client: HttpClient) -> None:
    """`{attempt_id, id, status, timestamp}`, with emoji in the text and a number as id; malformed bodies are refused."""
    provider, account = HttpProvider(http_client), http_account("http://x/", HttpConfig())
    body = orjson.dumps({"attempt_id": "att_1", "id": 7, "status": "replied", "timestamp": "t", "text": "ok 👍"})
    (report,) = provider.receive(account, signed_callback(body)).reports
    fields = (report.attempt_id, report.provider_message_id, report.status, report.text)
    assert fields == ("att_1", "7", "replied", "ok 👍")
    for malformed in (b"[]", b"no", b'{"id": "m"}', b'{"id": {"a": 1}, "status": "sent", "timestamp": "t"}'):
        with pytest.raises(MalformedCallback):
            provider.receive(account, signed_callback(malformed))


async def test_retry_after_is_parsed(http_client: HttpClient) -> None:
    """The Retry-After of a 503 is in the result."""
    async with http_harness(http_client) as harness:
        result, _, _ = await harness.send("transient")
    assert (result.retry_after_s, result.http_status, result.code) == (7.0, 503, "later")


def test_a_json_path_finds_a_value_or_nothing() -> None:
    """Dots and indexes lead into objects and lists; a path without a value gives None."""
    document = {"messages": [{"id": "m1"}], "error": {"code": 7}}
    assert find(document, "$.messages[0].id") == "m1"
    assert find(document, "$.error.code") == 7
    for path in ("$.messages[1].id", "$.none.id", "$.error[0]", "$.messages.id"):
        assert find(document, path) is None
    assert find(None, "$.id") is None


async def test_a_mail_arrives_complete(http_client: HttpClient, mail_server: FakeMailServer) -> None:
    """Subject, both bodies and a line with a single dot arrive, and the Message-ID contains the attempt's id."""
    call = make_call()
    result = await SmtpProvider(http_client).send(mail_server.account(), call)
    (mail,) = mail_server.mails
    assert result.provider_message_id == mail["Message-ID"] == f"<{call.attempt_id}@example.com>"
    assert str(email.header.make_header(email.header.decode_header(mail["Subject"]))) == "Grüße"
    text, html = (part.get_payload(decode=True).decode().replace("\r\n", "\n") for part in mail.get_payload())
    assert text == "Bis später\n.\nEnde\n"
    assert html == "<p>später</p>\n"


async def test_a_wrong_password_is_a_config_failure(http_client: HttpClient, tmp_path: Path) -> None:
    """It is not retried eight times: another account may help, time does not (failure case 29)."""
    async with run_mail_server(tmp_path) as mail_server:
        provider = SmtpProvider(http_client, mail_server.trust)
        wrong = await provider.send(mail_server.account(tls="starttls", username="me", password="wrong"), make_call())
        assert (wrong.outcome, wrong.failure) == ("rejected", "config")
        right = await provider.send(mail_server.account(tls="starttls", username="me", password="right"), make_call())
        assert right.outcome == "accepted"


async def test_nothing_is_authenticated_in_clear(http_client: HttpClient, mail_server: FakeMailServer) -> None:
    """An account with a login and without TLS, as an older version could save it, does not even connect."""
    account = mail_server.account(tls="none", username="me", password="right")
    result = await SmtpProvider(http_client).send(account, make_call())
    assert (result.outcome, result.failure, result.code) == ("rejected", "config", "login_without_tls")
    assert mail_server.connections == 0


async def test_refused_content_is_a_content_failure(http_client: HttpClient, mail_server: FakeMailServer) -> None:
    """554 5.7.1 after the dot means the content, by the enhanced code."""
    result = await SmtpProvider(http_client).send(mail_server.account(), make_call(to="content@example.com"))
    assert (result.outcome, result.failure, result.code) == ("rejected", "content", "5.7.1")


async def test_a_mail_is_never_sent_unencrypted_by_fallback(
    http_client: HttpClient, mail_server: FakeMailServer
) -> None:
    """If the account requires STARTTLS and the server does not offer it, nothing is sent."""
    result = await SmtpProvider(http_client).send(mail_server.account(tls="starttls"), make_call())
    assert (result.outcome, result.failure) == ("rejected", "config")
    assert mail_server.mails == []


async def test_the_ssrf_guard_covers_smtp(mail_server: FakeMailServer) -> None:
    """Without the operator's permission nothing is sent to this machine, over SMTP as over HTTP."""
    async with HttpClient(EgressSettings()) as guarded:
        result = await SmtpProvider(guarded).send(mail_server.account(), make_call())
    assert (result.outcome, result.failure, result.code) == ("rejected", "config", "egress_blocked")
    assert mail_server.mails == []


FORGERIES = [
    "=?utf-8?q?x=0d=0aReply-To:_thief=40evil.example?=",
    "=?utf-8?q?x=0d=0aBcc:_thief=40evil.example=0d=0a=0d=0aforged_body?=",
    "=?utf-8?b?eA0KUmVwbHktVG86IHRoaWVmQGV2aWwuZXhhbXBsZQ0KDQpmb3JnZWQ=?=",
    "=?us-ascii?q?a?= =?us-ascii?q?=0aReply-To:_x?=",
    "x\r\nReply-To: thief@evil.example\r\n\r\nforged",
    "x\rReply-To: thief@evil.example\r\rforged",
    "x\u2028Reply-To: thief@evil.example\x85\x0b\x0c\x1c",
    "x\n.\nMAIL FROM:<thief@evil.example>",
    "\x00\x07\x1b[2J\x7f",
]
HEADERS = [
    "From", "To", "Subject", "Date", "Message-ID", "X-Spine-Attempt", "MIME-Version", "Content-Type",
]  # fmt: skip


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_no_variable_makes_a_header(http_client: HttpClient, mail_server: FakeMailServer, forgery: str) -> None:
    """A variable in subject, text and html arrives as a text: the head has the same headers as ever, the body is whole."""
    bodies = {"email": {"subject": "Hi {{ name }}", "text": "Dear {{ name }}", "html": "<p>{{ name }}</p>"}}
    content = (await parse_bodies(bodies)).content("email", {"name": forgery}, TemplateSettings())
    result = await SmtpProvider(http_client).send(mail_server.account(), make_call(content=content))
    assert result.outcome == "accepted"
    (mail,) = mail_server.mails
    assert mail.keys() == HEADERS
    text, html = (part.get_payload(decode=True).decode() for part in mail.get_payload())
    assert (text[:5], html[:3], html.strip()[-4:]) == ("Dear ", "<p>", "</p>")
    subject = str(email.header.make_header(email.header.decode_header(mail["Subject"])))
    assert (
        subject.split()
        == "".join(char if char.isprintable() else " " for char in f"Hi {' '.join(forgery.split())}").split()
    )


async def test_a_head_that_is_not_the_meant_one_is_not_sent(
    http_client: HttpClient, mail_server: FakeMailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The serialised head is checked: should a value break out all the same, the attempt is rejected before a connection."""
    monkeypatch.setattr("providers.smtp.mail._encoded", lambda text: f"{text}\r\nReply-To: thief@evil.example")
    result = await SmtpProvider(http_client).send(mail_server.account(), make_call())
    assert (result.outcome, result.failure, result.code) == ("rejected", "content", "unsafe_header")
    assert mail_server.connections == 0


async def test_a_recipient_is_written_in_ascii(http_client: HttpClient, mail_server: FakeMailServer) -> None:
    """A domain goes as IDNA; a local part beyond ASCII is a failure of the recipient, since no server need take it."""
    provider = SmtpProvider(http_client)
    assert (await provider.send(mail_server.account(), make_call(to="meera@bücher.example"))).outcome == "accepted"
    assert mail_server.mails[0]["To"] == "meera@xn--bcher-kva.example"
    result = await provider.send(mail_server.account(), make_call(to="mëera@example.com"))
    assert (result.outcome, result.failure, result.code) == ("rejected", "recipient", "address_not_ascii")
