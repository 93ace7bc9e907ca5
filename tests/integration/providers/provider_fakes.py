"""Provider adapters under test, each connected to a fake of the service that it calls."""

import asyncio
import email
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web
from aiosmtpd.smtp import SMTP, AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from standardwebhooks import Webhook

from providers.http import HttpProvider
from providers.protocol import Provider
from providers.sandbox import SandboxProvider
from providers.smtp import SmtpProvider
from spine.kernel import ids
from spine.kernel.database import open_pool
from spine.kernel.http_client import HttpClient
from spine.notifications.account_credentials import ProviderAccount
from spine.notifications.account_models import (
    HttpConfig,
    HttpCredentials,
    NoConfig,
    SandboxCredentials,
    SandboxState,
    SmtpConfig,
    SmtpCredentials,
)
from spine.notifications.provider_calls import ProviderCall, ProviderResult
from spine.notifications.rendering import Content

SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OUTCOMES = ("accepted", "recipient", "transient", "lost", "unreachable")
"""The outcomes that every harness can produce."""
_CLOSED_PORT = 9


def make_call(**fields: Any) -> ProviderCall:
    """A call as the worker makes it."""
    values: dict[str, Any] = {
        "attempt_id": ids.mint("att"),
        "message_id": ids.mint("msg"),
        "workspace_id": "wsp_1",
        "channel": "email",
        "to": "meera@example.com",
        "content": Content("Bis später\n.\nEnde", "Grüße", "<p>später</p>"),
        "vars": {"time": "5"},
        "env": "live",
        "number": 1,
        "wait_s": 60,
    }
    return ProviderCall(**values | fields)


@dataclass(frozen=True, slots=True)
class Harness:
    """One adapter and its fake service.

    `prepare` makes an account and a call that end in an outcome; `count_arrivals` counts the messages that the service
    accepted for an attempt.
    """

    provider: Provider
    prepare: Callable[[str], tuple[ProviderAccount, ProviderCall]]
    count_arrivals: Callable[[str], Awaitable[int]]

    async def send(self, outcome: str) -> tuple[ProviderResult, ProviderCall, ProviderAccount]:
        """Make a call that ends in this outcome."""
        account, call = self.prepare(outcome)
        return await self.provider.send(account, call), call, account


@dataclass(slots=True)
class FakeMailServer:
    """An SMTP server on loopback. The local part of a recipient scripts the outcome."""

    port: int = 0
    mails: list[Any] = field(default_factory=list)
    connections: int = 0
    trust: ssl.SSLContext | None = None
    """What a client needs to trust the server's certificate. None: the server has no TLS."""

    async def handle_RCPT(self, _: Any, __: Any, envelope: Any, address: str, ___: Any) -> str:  # noqa: N802  # aiosmtpd's name
        """Refuse some recipients."""
        if address.startswith("recipient"):
            return "550 5.1.1 no such mailbox"
        if address.startswith("transient"):
            return "451 4.7.1 try again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, _: Any, envelope: Any) -> str:  # noqa: N802  # aiosmtpd's name
        """Accept a mail, and refuse or lose the reply to some."""
        self.mails.append(email.message_from_bytes(envelope.content))
        if envelope.rcpt_tos[0].startswith("lost"):
            server.transport.abort()  # the mail is accepted, and the reply is not sent
        if envelope.rcpt_tos[0].startswith("content"):
            return "554 5.7.1 refused by policy"
        return "250 2.0.0 queued"

    def account(self, *, tls: str = "none", **credentials: Any) -> ProviderAccount:
        """An account at this server."""
        values: dict[str, Any] = {"host": "127.0.0.1", "port": self.port} | credentials
        config = SmtpConfig.model_validate({"sender": "spine@example.com", "tls": tls})
        return ProviderAccount("wsp_1", "prv_1", "live", "email", "smtp", SmtpCredentials(**values), config, None)


def _authenticate(_: Any, __: Any, ___: Any, ____: str, auth: Any) -> AuthResult:
    return AuthResult(success=auth.password == b"right", handled=False)


def _loopback_tls(directory: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The TLS contexts of a server at 127.0.0.1 and of a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail.example.com")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    file = directory / "mail.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + pem
    )
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(file)
    return server, ssl.create_default_context(cadata=pem.decode())


@asynccontextmanager
async def run_mail_server(tls_directory: Path | None = None) -> AsyncIterator[FakeMailServer]:
    """Run the mail server until the block ends. With a directory for its certificate it offers STARTTLS."""
    mail_server = FakeMailServer()
    loop = asyncio.get_running_loop()
    tls = None
    if tls_directory is not None:
        tls, mail_server.trust = _loopback_tls(tls_directory)

    def protocol() -> SMTP:
        mail_server.connections += 1
        return SMTP(
            mail_server,
            hostname="mail.example.com",
            loop=loop,
            authenticator=_authenticate,
            auth_require_tls=False,
            tls_context=tls,
        )

    server = await loop.create_server(protocol, "127.0.0.1", 0)
    mail_server.port = server.sockets[0].getsockname()[1]
    try:
        yield mail_server
    finally:
        server.close()


def smtp_harness(http_client: HttpClient, mail_server: FakeMailServer) -> Harness:
    """The SMTP adapter and the mail server."""

    def prepare(outcome: str) -> tuple[ProviderAccount, ProviderCall]:
        port = _CLOSED_PORT if outcome == "unreachable" else mail_server.port
        return mail_server.account(port=port), make_call(to=f"{outcome}@example.com")

    async def count_arrivals(attempt_id: str) -> int:
        return sum(mail["X-Spine-Attempt"] == attempt_id for mail in mail_server.mails)

    return Harness(SmtpProvider(http_client), prepare, count_arrivals)


def http_account(url: str, config: HttpConfig) -> ProviderAccount:
    """An account of the HTTP provider."""
    credentials = HttpCredentials(url=url, secret=SECRET)
    return ProviderAccount("wsp_1", "prv_1", "live", "sms", "http", credentials, config, None)


@asynccontextmanager
async def http_harness(http_client: HttpClient) -> AsyncIterator[Harness]:
    """The HTTP adapter and a service that verifies signatures with another library. `to` scripts the outcome."""
    accepted: list[str] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        Webhook(SECRET).verify(raw, dict(request.headers))
        body = orjson.loads(raw)
        attempt_id, outcome = body["attempt_id"], body["to"]
        assert attempt_id == request.headers["Idempotency-Key"] == request.headers["webhook-id"]
        if outcome == "recipient":
            return web.json_response({"error": {"code": "no_such_person"}}, status=422)
        if outcome == "transient":
            return web.json_response({"error": {"code": "later"}}, status=503, headers={"Retry-After": "7"})
        if attempt_id not in accepted:
            accepted.append(attempt_id)
        if outcome == "lost":
            assert request.transport is not None
            request.transport.abort()
        return web.json_response({"result": [{"id": f"m{accepted.index(attempt_id)}"}]}, status=202)

    app = web.Application()
    app.router.add_post("/", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]

    def prepare(outcome: str) -> tuple[ProviderAccount, ProviderCall]:
        url = f"http://127.0.0.1:{_CLOSED_PORT if outcome == 'unreachable' else port}/"
        account = http_account(url, HttpConfig(id="$.result[0].id", error="$.error.code"))
        return account, make_call(channel="sms", to=outcome)

    async def count_arrivals(attempt_id: str) -> int:
        return accepted.count(attempt_id)

    try:
        yield Harness(HttpProvider(http_client), prepare, count_arrivals)
    finally:
        await runner.cleanup()


@asynccontextmanager
async def sandbox_harness(database_url: str) -> AsyncIterator[Harness]:
    """The sandbox, with its state in a database."""
    pool = await open_pool(database_url, "spine_worker", "test", 2)
    digits = {"accepted": "0", "recipient": "3", "transient": "4", "lost": "6", "unreachable": "0"}

    def prepare(outcome: str) -> tuple[ProviderAccount, ProviderCall]:
        state = SandboxState(outage=outcome == "unreachable")
        credentials = SandboxCredentials(secret=SECRET)
        account = ProviderAccount("wsp_1", "prv_1", "test", "whatsapp", "sandbox", credentials, NoConfig(), state)
        return account, make_call(channel="whatsapp", to=f"+910000000{digits[outcome]}00", env="test")

    async def count_arrivals(attempt_id: str) -> int:
        count: int = await pool.fetchval("SELECT count(*) FROM spine.sandbox_calls WHERE attempt_id = $1", attempt_id)
        return count

    try:
        yield Harness(SandboxProvider(pool), prepare, count_arrivals)
    finally:
        pool.terminate()
