"""One law for all providers: the conformance suite of the Provider protocol, run against each of them over its own wire."""

import asyncio
import email
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from typing import Any

import orjson
import pytest
from aiohttp import web
from aiosmtpd.smtp import SMTP, AuthResult
from standardwebhooks import Webhook

from providers.http import HttpProvider, find
from providers.protocol import MalformedCallback, Provider, SignatureInvalid
from providers.sandbox import Sandbox
from providers.smtp import SmtpProvider
from spine.kernel import ids
from spine.kernel.database import open_pool
from spine.kernel.http_client import HttpClient
from spine.kernel.settings import EgressSettings
from spine.notifications.account_credentials import ProviderAccount
from spine.notifications.provider_calls import ProviderCall, ProviderResult
from spine.notifications.provider_kinds import (
    PROVIDER_KINDS,
    HttpConfig,
    HttpCredentials,
    NoConfig,
    SandboxCredentials,
    SandboxState,
    SmtpConfig,
    SmtpCredentials,
)
from spine.notifications.rendering import Content
from spine.webhooks.signing import sign

SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
FATES = ("accepted", "recipient", "transient", "lost", "unreachable")


def call(**more: Any) -> ProviderCall:
    """A call as the worker makes it."""
    values: dict[str, Any] = {
        "attempt_id": ids.mint("att"),
        "message_id": ids.mint("msg"),
        "workspace_id": ids.mint("wsp"),
        "channel": "email",
        "to": "meera@example.com",
        "content": Content("Bis später\n.\nEnde", "Grüße", "<p>später</p>"),
        "vars": {"time": "5"},
        "env": "live",
        "number": 1,
        "wait_s": 60,
    }
    return ProviderCall(**values | more)


@dataclass(frozen=True, slots=True)
class Wire:
    """One provider with its far side: `prepared` makes what ends in a fate, `arrivals` counts an attempt over there."""

    provider: Provider
    prepared: Callable[[str], tuple[ProviderAccount, ProviderCall]]
    arrivals: Callable[[str], Awaitable[int]]

    async def send(self, fate: str) -> tuple[ProviderResult, ProviderCall, ProviderAccount]:
        """Make a call with this fate."""
        account, made = self.prepared(fate)
        return await self.provider.send(account, made), made, account


@pytest.fixture
async def http_client() -> AsyncIterator[HttpClient]:
    """The way out, opened to this machine."""
    async with HttpClient(
        EgressSettings(egress_allow=(IPv4Network("127.0.0.0/8"),), connect_timeout_s=2, attempt_timeout_s=3)
    ) as held:
        yield held


# --- the far sides ---------------------------------------------------------------------------------------------------


class _Mailroom:
    """An SMTP server whose recipients have fates."""

    def __init__(self) -> None:
        self.mails: list[Any] = []
        self.taken: list[str] = []

    async def handle_RCPT(self, _: Any, __: Any, envelope: Any, address: str, ___: Any) -> str:  # noqa: N802  # the server's name for it
        if address.startswith("recipient"):
            return "550 5.1.1 no such mailbox"
        if address.startswith("transient"):
            return "451 4.7.1 try again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, _: Any, envelope: Any) -> str:  # noqa: N802  # the server's name for it
        mail = email.message_from_bytes(envelope.content)
        self.mails.append(mail)
        self.taken.append(str(mail["X-Spine-Attempt"]))
        if envelope.rcpt_tos[0].startswith("lost"):
            server.transport.abort()  # the mail is taken, and the answer never leaves
        if envelope.rcpt_tos[0].startswith("content"):
            return "554 5.7.1 refused by policy"
        return "250 2.0.0 queued"


def _let_in(_: Any, __: Any, ___: Any, ____: str, auth: Any) -> AuthResult:
    return AuthResult(success=auth.password == b"right", handled=False)


@pytest.fixture
async def mailroom() -> AsyncIterator[tuple[_Mailroom, int]]:
    """A mail server on a free port."""
    handler = _Mailroom()
    loop = asyncio.get_running_loop()

    def protocol() -> SMTP:
        return SMTP(handler, hostname="mail.example.com", loop=loop, authenticator=_let_in, auth_require_tls=False)

    server = await loop.create_server(protocol, "127.0.0.1", 0)
    try:
        yield handler, server.sockets[0].getsockname()[1]
    finally:
        server.close()


def smtp_account(port: int, **credentials: Any) -> ProviderAccount:
    """An account of that server."""
    held = SmtpCredentials(host="127.0.0.1", port=port, **credentials)
    config = SmtpConfig(sender="spine@example.com", tls="none")
    return ProviderAccount("wsp_1", "prv_1", "live", "email", "smtp", held, config, None, None)


@asynccontextmanager
async def smtp_wire(http_client: HttpClient, room: tuple[_Mailroom, int]) -> AsyncIterator[Wire]:
    """SMTP, to the mail server."""
    handler, port = room

    def prepared(fate: str) -> tuple[ProviderAccount, ProviderCall]:
        return smtp_account(9 if fate == "unreachable" else port), call(to=f"{fate}@example.com")

    async def arrivals(attempt_id: str) -> int:
        return handler.taken.count(attempt_id)

    yield Wire(SmtpProvider(http_client), prepared, arrivals)


@asynccontextmanager
async def http_wire(http_client: HttpClient) -> AsyncIterator[Wire]:
    """HTTP, to a service that verifies what it gets."""
    seen: dict[str, int] = {}
    taken: list[str] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        Webhook(SECRET).verify(raw, dict(request.headers))  # somebody else's library is the judge
        body = orjson.loads(raw)
        assert body["attempt_id"] == request.headers["Idempotency-Key"] == request.headers["webhook-id"]
        fate = body["to"]
        if fate == "recipient":
            return web.json_response({"error": {"code": "no_such_person"}}, status=422)
        if fate == "transient":
            return web.json_response({"error": {"code": "later"}}, status=503, headers={"Retry-After": "7"})
        if body["attempt_id"] not in seen:
            taken.append(body["attempt_id"])
        id = seen.setdefault(body["attempt_id"], len(seen))
        if fate == "lost":
            assert request.transport is not None
            request.transport.abort()
        return web.json_response({"result": [{"id": f"m{id}"}]}, status=202)

    app = web.Application()
    app.router.add_post("/", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]

    def prepared(fate: str) -> tuple[ProviderAccount, ProviderCall]:
        url = f"http://127.0.0.1:{9 if fate == 'unreachable' else port}/"
        config = HttpConfig(id="$.result[0].id", error="$.error.code")
        account = ProviderAccount(
            "wsp_1", "prv_1", "live", "sms", "http", HttpCredentials(url=url, secret=SECRET), config, None, None
        )
        return account, call(channel="sms", to=fate)

    async def arrivals(attempt_id: str) -> int:
        return taken.count(attempt_id)

    try:
        yield Wire(HttpProvider(http_client), prepared, arrivals)
    finally:
        await runner.cleanup()


@asynccontextmanager
async def sandbox_wire(database: str) -> AsyncIterator[Wire]:
    """The sandbox, with its memory in a database."""
    pool = await open_pool(database, "spine_worker", "test", 2)
    fates = {"accepted": "0", "recipient": "3", "transient": "4", "lost": "6", "unreachable": "0"}

    def prepared(fate: str) -> tuple[ProviderAccount, ProviderCall]:
        state = SandboxState(outage=fate == "unreachable")
        held = SandboxCredentials(secret=SECRET)
        account = ProviderAccount("wsp_1", "prv_1", "test", "whatsapp", "sandbox", held, NoConfig(), state, None)
        to = f"+910000000{fates[fate]}00"
        return account, call(channel="whatsapp", to=to, env="test", workspace_id="wsp_1")

    async def arrivals(attempt_id: str) -> int:
        found: int = await pool.fetchval("SELECT count(*) FROM spine.sandbox_calls WHERE attempt_id = $1", attempt_id)
        return found

    try:
        yield Wire(Sandbox(pool), prepared, arrivals)
    finally:
        pool.terminate()


@pytest.fixture(params=["sandbox", "smtp", "http"])
async def wire(
    request: pytest.FixtureRequest, http_client: HttpClient, mailroom: tuple[_Mailroom, int], module_database: str
) -> AsyncIterator[Wire]:
    """Each provider in turn."""
    made = {
        "sandbox": lambda: sandbox_wire(module_database),
        "smtp": lambda: smtp_wire(http_client, mailroom),
        "http": lambda: http_wire(http_client),
    }
    async with made[request.param]() as held:
        yield held


# --- the laws of all -------------------------------------------------------------------------------------------------


async def test_a_call_that_is_taken_is_accepted_and_bears_our_reference(wire: Wire) -> None:
    """Accepted, with the provider's id, and the attempt's id has reached the far side."""
    result, made, _ = await wire.send("accepted")
    assert (result.outcome, result.failure) == ("accepted", None)
    assert result.provider_message_id
    assert await wire.arrivals(made.attempt_id) == 1


@pytest.mark.parametrize("fate", ["recipient", "transient"])
async def test_a_refusal_has_its_class(wire: Wire, fate: str) -> None:
    """A person who cannot be reached and a fault that may pass are told apart, each with the provider's code."""
    result, made, _ = await wire.send(fate)
    assert (result.outcome, result.failure) == ("rejected", fate)
    assert result.code
    assert await wire.arrivals(made.attempt_id) == 0


async def test_a_provider_that_is_not_there_is_a_connection_that_failed(wire: Wire) -> None:
    """Nothing can have been sent, and the class says that another try or account may help."""
    result, made, _ = await wire.send("unreachable")
    assert (result.outcome, result.failure) == ("rejected", "connect")
    assert await wire.arrivals(made.attempt_id) == 0


async def test_an_answer_that_is_lost_leaves_the_outcome_unknown(wire: Wire) -> None:
    """Bytes left and no answer came: unknown, never a rejection, for it may have been taken."""
    result, made, _ = await wire.send("lost")
    assert (result.outcome, result.provider_message_id) == ("unknown", None)
    assert await wire.arrivals(made.attempt_id) == 1


async def test_a_repeated_attempt_counts_once_where_that_is_promised(wire: Wire) -> None:
    """A kind that says `dedupes` takes an attempt once and answers alike; the worker repeats calls of such kinds alone."""
    result, made, account = await wire.send("accepted")
    if not PROVIDER_KINDS[wire.provider.kind].dedupes:
        pytest.skip("a mail server does not know repeated mails")
    assert await wire.provider.send(account, made) == result
    assert await wire.arrivals(made.attempt_id) == 1


async def test_no_secret_and_no_content_stands_in_what_is_kept(wire: Wire) -> None:
    """`raw` goes into the database and the timeline."""
    for fate in FATES:
        result, made, _ = await wire.send(fate)
        kept = orjson.dumps(result.raw).decode()
        assert SECRET not in kept
        assert made.content.text not in kept


async def test_what_is_not_signed_is_refused(wire: Wire) -> None:
    """A callback without a signature, with another's, or an old one is from nobody."""
    account, made = wire.prepared("accepted")
    body = orjson.dumps({"attempt_id": made.attempt_id, "id": "m1", "status": "delivered", "timestamp": "1"})
    for at_s, secret in ((time.time() - 900, SECRET), (time.time(), "whsec_" + "B" * 32)):
        headers = {
            "webhook-id": "1",
            "webhook-timestamp": str(int(at_s)),
            "webhook-signature": sign("1", int(at_s), body, [secret]),
        }
        with pytest.raises(SignatureInvalid):
            wire.provider.reports(account, SECRET, headers, body)
    with pytest.raises(SignatureInvalid):
        wire.provider.reports(account, SECRET, {}, body)


# --- what is special -------------------------------------------------------------------------------------------------


def _signed(body: bytes) -> dict[str, str]:
    now_s = int(time.time())
    return {"webhook-id": "1", "webhook-timestamp": str(now_s), "webhook-signature": sign("1", now_s, body, [SECRET])}


async def test_a_signed_report_is_read_as_it_is_written(http_client: HttpClient) -> None:
    """`{attempt_id, id, status, timestamp}`, with emoji in the text and a number for an id; junk is told to be junk."""
    provider = HttpProvider(http_client)
    account = ProviderAccount(
        "wsp_1",
        "prv_1",
        "live",
        "sms",
        "http",
        HttpCredentials(url="http://x/", secret=SECRET),
        HttpConfig(),
        None,
        None,
    )
    body = orjson.dumps({"attempt_id": "att_1", "id": 7, "status": "replied", "timestamp": "t", "text": "ok 👍"})
    (report,) = provider.reports(account, SECRET, _signed(body), body)
    assert (report.attempt_id, report.provider_message_id, report.status, report.text) == (
        "att_1",
        "7",
        "replied",
        "ok 👍",
    )
    for junk in (b"[]", b"no", b'{"id": "m"}', b'{"id": {"a": 1}, "status": "sent", "timestamp": "t"}'):
        with pytest.raises(MalformedCallback):
            provider.reports(account, SECRET, _signed(junk), junk)


async def test_a_mail_is_written_whole(http_client: HttpClient, mailroom: tuple[_Mailroom, int]) -> None:
    """Subject and both bodies survive the wire, a lone dot too, and the Message-ID is made of our attempt's id."""
    room, port = mailroom
    made = call()
    result = await SmtpProvider(http_client).send(smtp_account(port), made)
    (mail,) = room.mails
    assert result.provider_message_id == mail["Message-ID"] == f"<{made.attempt_id}@example.com>"
    assert str(email.header.make_header(email.header.decode_header(mail["Subject"]))) == "Grüße"
    text, html = (part.get_payload(decode=True).decode().replace("\r\n", "\n") for part in mail.get_payload())
    assert text == "Bis später\n.\nEnde\n"
    assert html == "<p>später</p>\n"


async def test_a_wrong_password_is_a_matter_of_configuration(
    http_client: HttpClient, mailroom: tuple[_Mailroom, int]
) -> None:
    """Never tried eight times: another account may help, time does not (failure case 29)."""
    _, port = mailroom
    wrong = await SmtpProvider(http_client).send(smtp_account(port, username="me", password="wrong"), call())
    assert (wrong.outcome, wrong.failure) == ("rejected", "config")
    right = await SmtpProvider(http_client).send(smtp_account(port, username="me", password="right"), call())
    assert right.outcome == "accepted"


async def test_content_that_is_refused_is_no_fault_of_the_provider(
    http_client: HttpClient, mailroom: tuple[_Mailroom, int]
) -> None:
    """554 5.7.1 after the dot: the content, by the enhanced code."""
    _, port = mailroom
    result = await SmtpProvider(http_client).send(smtp_account(port), call(to="content@example.com"))
    assert (result.outcome, result.failure, result.code) == ("rejected", "content", "5.7.1")


async def test_what_was_to_be_encrypted_never_goes_out_in_the_clear(
    http_client: HttpClient, mailroom: tuple[_Mailroom, int]
) -> None:
    """A server that offers no STARTTLS where the account demands it gets nothing."""
    room, port = mailroom
    account = smtp_account(port)
    account = replace(account, config=SmtpConfig(sender="spine@example.com", tls="starttls"))
    result = await SmtpProvider(http_client).send(account, call())
    assert (result.outcome, result.failure) == ("rejected", "config")
    assert room.mails == []


async def test_a_mail_server_inside_is_not_reached(mailroom: tuple[_Mailroom, int]) -> None:
    """The guard holds for SMTP as for HTTP: without the operator's leave nothing goes to this machine."""
    room, port = mailroom
    async with HttpClient(EgressSettings()) as closed:
        result = await SmtpProvider(closed).send(smtp_account(port), call())
    assert (result.outcome, result.failure, result.code) == ("rejected", "config", "egress_blocked")
    assert room.mails == []


async def test_a_retry_after_is_read(http_client: HttpClient) -> None:
    """503 with Retry-After: the provider's wish for patience reaches the decision."""
    async with http_wire(http_client) as wire:
        result, _, _ = await wire.send("transient")
    assert (result.retry_after_s, result.http_status, result.code) == (7.0, 503, "later")


def test_a_path_finds_what_stands_there_or_nothing() -> None:
    """Dots and indexes lead into objects and lists; a way that leads nowhere ends in nothing."""
    document = {"messages": [{"id": "m1"}], "error": {"code": 7}}
    assert find(document, "$.messages[0].id") == "m1"
    assert find(document, "$.error.code") == 7
    for path in ("$.messages[1].id", "$.none.id", "$.error[0]", "$.messages.id"):
        assert find(document, path) is None
    assert find(None, "$.id") is None
