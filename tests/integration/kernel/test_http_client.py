"""The way out against real servers on this machine: what they do, what is reported, and where nothing ever arrives."""

import asyncio
import gzip
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, ip_network
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from spine.kernel.http_client import HttpClient
from spine.kernel.settings import EgressSettings

LOOPBACK = "127.0.0.0/8"
HEADERS = {"webhook-id": "evt_1", "User-Agent": "Spine/0.1.0", "Content-Type": "application/json"}
BODY = '{"text":"naïve 🚀"}'.encode()
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Receiver:
    """A server that reads whole requests and lets a script answer them; counts what came."""

    port: int = 0
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    def url(self, path: str = "/hook", host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answers(raw: bytes) -> Script:
    """Answers every request with these bytes."""

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()

    return script


def answers_then_closes(raw: bytes) -> Script:
    """Answers with these bytes and ends the connection, whatever it promised."""

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()
        writer.close()

    return script


async def hangs(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Never answers; ends when the caller goes away."""
    await reader.read()


async def resets(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Ends the connection with a TCP reset."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def floods(head: bytes, chunk: bytes) -> Script:
    """Sends a body that never ends."""

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while not writer.is_closing():
            writer.write(chunk)
            await writer.drain()

    return script


@asynccontextmanager
async def receiver(script: Script, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """A receiver on a free port of IPv4 loopback."""
    stats = Receiver()
    open_tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_tasks.add(task)
        stats.connections += 1
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (int(line[15:]) for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:"), 0
                )
                stats.requests.append(head + await reader.readexactly(length))
                stats.asked.set()
                await script(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            open_tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    stats.port = server.sockets[0].getsockname()[1]
    try:
        yield stats
    finally:
        server.close()
        for task in list(open_tasks):
            task.cancel()
        await asyncio.gather(*open_tasks, return_exceptions=True)


class Names:
    """A name server in hand: each name gives its answers in turn, and the last one for ever."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self._answers = answers
        self.asked: list[str] = []

    async def __call__(self, host: str) -> list[str]:
        self.asked.append(host)
        turns = self._answers.get(host.partition(".")[0])
        if turns is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return turns.pop(0) if len(turns) > 1 else turns[0]


def door(*allow: str, lookup: Names | None = None, **settings: Any) -> HttpClient:
    """The way out with these ranges opened and short time-outs."""
    given = {"connect_timeout_s": 2.0, "attempt_timeout_s": 2.0, **settings}
    return HttpClient(EgressSettings(egress_allow=tuple(ip_network(text) for text in allow), **given), lookup=lookup)


async def test_the_request_is_what_was_given_and_nothing_more() -> None:
    """Body and headers leave as they are; only Host and Content-Length are added."""
    async with receiver(answers(OK)) as there, door(LOOPBACK) as http_client:
        response = await http_client.post(there.url("/a%2Fb?x=1&y=%7e"), HEADERS, BODY)
    assert (response.status, response.error, response.body_excerpt) == (200, None, b"ok")
    head, _, body = there.requests[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /a%2Fb?x=1&y=%7e HTTP/1.1"
    assert body == BODY
    sent = {line.partition(":")[0].lower(): line.partition(": ")[2] for line in lines[1:]}
    assert sent == {
        "host": f"127.0.0.1:{there.port}",
        "content-length": str(len(BODY)),
        **{name.lower(): value for name, value in HEADERS.items()},
    }


async def test_times_are_aware_and_in_order() -> None:
    """An attempt starts and ends in UTC, its end after its start by its duration."""
    before = datetime.now(UTC)
    async with receiver(answers(OK)) as there, door(LOOPBACK) as http_client:
        response = await http_client.post(there.url(), HEADERS, BODY)
    assert before <= response.started_at <= response.ended_at
    assert response.ended_at - response.started_at == timedelta(seconds=response.duration_s)


@pytest.mark.parametrize("status", [204, 400, 410, 429, 500, 503, 599])
async def test_statuses_come_back_with_their_retry_after(status: int) -> None:
    """A status is reported and not judged here, with Retry-After as it was written."""
    raw = f"HTTP/1.1 {status} X\r\nRetry-After: 17\r\nContent-Length: 0\r\n\r\n".encode()
    async with receiver(answers(raw)) as there, door(LOOPBACK) as http_client:
        response = await http_client.post(there.url(), HEADERS, BODY)
    assert (response.status, response.error, response.retry_after) == (status, None, "17")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    """A 3xx is the answer; nothing arrives where it points to."""
    async with receiver(answers(OK)) as elsewhere:
        raw = f"HTTP/1.1 {status} X\r\nLocation: {elsewhere.url()}\r\nContent-Length: 0\r\n\r\n".encode()
        async with receiver(answers(raw)) as there, door(LOOPBACK) as http_client:
            response = await http_client.post(there.url(), HEADERS, BODY)
            async with http_client.client() as client:
                by_httpx = await client.post(there.url(), content=BODY)
    assert response.status == by_httpx.status_code == status
    assert elsewhere.connections == 0


async def test_connections_are_kept_and_reused() -> None:
    """Posts to one receiver go through one connection, also when a body is longer than what is kept of it."""
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000
    async with receiver(answers(raw)) as there, door(LOOPBACK) as http_client:
        got = [await http_client.post(there.url(), HEADERS, BODY) for _ in range(3)]
    assert [(response.status, response.error, len(response.body_excerpt)) for response in got] == [
        (200, None, 8192)
    ] * 3
    assert there.connections == 1


@pytest.mark.parametrize(
    "script",
    [
        floods(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536),
        floods(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", b"x" * 65536),
        floods(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + b"x" * 4096 + b"\r\n"),
    ],
)
async def test_a_body_over_the_cap_is_a_failure_of_its_own(script: Script) -> None:
    """A body without end is left at the cap, with its first 8 KiB kept."""
    async with receiver(script) as there, door(LOOPBACK) as http_client:
        response = await http_client.post(there.url(), HEADERS, BODY)
    assert (response.status, response.error) == (200, "response_too_large")
    assert response.body_excerpt == b"x" * 8192


async def test_bodies_are_never_unpacked() -> None:
    """A compressed body is kept as it came: no bomb goes off here."""
    packed = gzip.compress(b"\0" * 10_000_000)
    raw = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n".encode() + packed
    async with receiver(answers(raw)) as there, door(LOOPBACK) as http_client:
        response = await http_client.post(there.url(), HEADERS, BODY)
        async with http_client.client() as client:
            with pytest.raises(httpx.RemoteProtocolError, match="compressed"):
                await client.get(there.url())
    assert (response.status, response.body_excerpt) == (200, packed[:8192])


@pytest.mark.parametrize(
    ("script", "status"),
    [
        (hangs, None),
        (answers(b"HTTP/1.1 200 OK\r\nContent-"), None),
        (answers(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), 200),
        (answers(b"HTTP/1.1 100 Continue\r\n\r\n"), None),
    ],
)
async def test_an_answer_that_is_not_complete_in_time_is_a_timeout(script: Script, status: int | None) -> None:
    """The time-out covers the whole answer, to the last byte of the body."""
    async with receiver(script) as there, door(LOOPBACK, attempt_timeout_s=0.3) as http_client:
        response = await http_client.post(there.url(), HEADERS, BODY)
    assert (response.status, response.error) == (status, "timeout")


async def test_a_handshake_that_hangs_is_a_connect_timeout() -> None:
    """Connecting includes TLS, and has a time-out of its own."""
    async with receiver(hangs) as there, door(LOOPBACK, connect_timeout_s=0.3) as http_client:
        response = await http_client.post(there.url(scheme="https"), HEADERS, BODY)
    assert (response.status, response.error) == (None, "connect_timeout")


async def test_a_name_server_that_hangs_is_a_connect_timeout() -> None:
    """Connecting includes resolving."""

    class Slow(Names):
        async def __call__(self, host: str) -> list[str]:
            await asyncio.Event().wait()
            return [host]

    async with door(connect_timeout_s=0.3, lookup=Slow()) as http_client:
        response = await http_client.post("http://slow.example/", HEADERS, BODY)
    assert response.error == "connect_timeout"


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (resets, "connection_reset"),
        (answers_then_closes(b""), "connection_reset"),
        (answers_then_closes(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), "connection_reset"),
        (answers_then_closes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"), "connection_reset"),
        (answers_then_closes(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "invalid_response"),
        (answers_then_closes(b"HTTP/1.1 abc OK\r\n\r\n"), "invalid_response"),
        (answers(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n"), "invalid_response"),
        (answers(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"), "invalid_response"),
        (answers(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), "invalid_response"),
    ],
)
async def test_broken_answers_have_their_codes(script: Script, error: str) -> None:
    """A connection that ends early and an answer that is not HTTP are told apart, and neither is a success."""
    async with receiver(script) as there, door(LOOPBACK) as http_client:
        response = await http_client.post(there.url(), HEADERS, BODY)
    assert response.error == error


async def test_an_upgrade_is_no_success() -> None:
    """101 to a POST is reported as the status it is, at once, and the connection is not kept."""
    ended = asyncio.Event()

    async def upgrades(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
        await reader.read()
        ended.set()

    async with receiver(upgrades) as there, door(LOOPBACK) as http_client:
        response = await http_client.post(there.url(), HEADERS, BODY)
        await ended.wait()
    assert (response.status, response.error) == (101, None)


async def test_nobody_listens() -> None:
    """A closed port is `connect_refused`."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        async with door(LOOPBACK) as http_client:
            response = await http_client.post(f"http://127.0.0.1:{closed.getsockname()[1]}/", HEADERS, BODY)
    assert (response.status, response.error) == (None, "connect_refused")


async def test_a_name_that_does_not_exist() -> None:
    """An unknown name is `dns_error` for a call, and no reason to refuse an endpoint."""
    async with door(LOOPBACK, lookup=Names(empty=[[]])) as http_client:
        assert (await http_client.post("http://nowhere.example/", HEADERS, BODY)).error == "dns_error"
        assert (await http_client.post("http://empty.example/", HEADERS, BODY)).error == "dns_error"
        assert await http_client.check_target("https://nowhere.example/") is None


async def test_headers_that_are_not_http_never_leave() -> None:
    """A header value with a line break is refused before anything is sent."""
    async with receiver(answers(OK)) as there, door(LOOPBACK) as http_client:
        response = await http_client.post(there.url(), {"x": "a\r\nHost: evil"}, BODY)
    assert response.error == "invalid_request"
    assert there.requests == []


@pytest.mark.parametrize(
    ("host", "error"),
    [
        *(("127.0.0.1", "egress_blocked"), ("localhost", "egress_blocked"), ("[::ffff:127.0.0.1]", "egress_blocked")),
        *(("[::ffff:7f00:1]", "egress_blocked"), ("[::127.0.0.1]", "egress_blocked"), ("0.0.0.0", "egress_blocked")),
        *(("[64:ff9b::7f00:1]", "egress_blocked"), ("2130706433", "invalid_url"), ("0x7f000001", "invalid_url")),
        *(("127.1", "invalid_url"), ("0177.0.0.1", "invalid_url"), ("127.0.0.1.", "invalid_url")),
        *(("①②⑦.0.0.1", "egress_blocked"), ("a@127.0.0.1", "invalid_url")),
    ],
)
async def test_inside_is_closed_in_every_spelling(host: str, error: str) -> None:
    """Without an opened range no spelling of loopback is connected to."""
    async with receiver(answers(OK)) as there, door() as http_client:
        response = await http_client.post(there.url(host=host), HEADERS, BODY)
        refused = await http_client.check_target(there.url(host=host))
    assert (response.status, response.error) == (None, error)
    assert refused is not None
    assert refused.code == error
    assert there.connections == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "127.1", "0x7f.1", "[::ffff:127.0.0.1]", "inside.example"])
async def test_the_last_look_holds_for_callers_that_skip_the_first(host: str) -> None:
    """httpx's API judges no URL, and still nothing reaches loopback: the socket itself is refused."""
    async with (
        receiver(answers(OK)) as there,
        door(lookup=Names(inside=[["127.0.0.1"]])) as http_client,
        http_client.client() as client,
    ):
        with pytest.raises((httpx.ConnectError, httpx.UnsupportedProtocol)):
            await client.get(there.url(host=host))
    assert there.connections == 0


async def test_a_name_that_leads_inside_is_blocked() -> None:
    """A public-looking name with a loopback address is `egress_blocked`, at create and at each attempt."""
    names = Names(inside=[["127.0.0.1"]], both=[["10.0.0.1", "127.0.0.1"]])
    async with receiver(answers(OK)) as there, door(lookup=names) as http_client:
        for host in ("inside.example", "both.example"):
            assert (await http_client.post(there.url(host=host), HEADERS, BODY)).error == "egress_blocked"
            refused = await http_client.check_target(there.url(host=host))
            assert refused is not None
            assert refused.code == "egress_blocked"
    assert there.connections == 0


async def test_a_name_is_connected_to_by_its_permitted_addresses_only() -> None:
    """Of several addresses the closed ones are dropped, and the call goes to an opened one under the name's Host."""
    names = Names(mixed=[["10.0.0.1", "127.0.0.1"]])
    async with receiver(answers(OK)) as there, door("127.0.0.1/32", lookup=names) as http_client:
        response = await http_client.post(there.url(host="mixed.example"), HEADERS, BODY)
    assert response.status == 200
    assert f"Host: mixed.example:{there.port}".encode() in there.requests[0]


async def test_a_name_that_changes_its_mind_fools_nobody() -> None:
    """Rebinding: permitted when the endpoint is made, inside when it is called; the attempt is blocked."""
    names = Names(rebind=[["127.0.0.2"], ["127.0.0.1"]])
    async with receiver(answers(OK)) as there, door("127.0.0.2/32", lookup=names) as http_client:
        assert await http_client.check_target(there.url(host="rebind.example")) is None
        response = await http_client.post(there.url(host="rebind.example"), HEADERS, BODY)
    assert response.error == "egress_blocked"
    assert there.connections == 0


async def test_one_call_resolves_once() -> None:
    """The address that was judged is the address that is called: a second answer is never asked for."""
    names = Names(flip=[["127.0.0.1"], ["127.0.0.2"]])
    async with receiver(answers(OK)) as there, door("127.0.0.1/32", lookup=names) as http_client:
        answers_ = [await http_client.post(there.url(host="flip.example"), HEADERS, BODY) for _ in range(2)]
    assert [response.status for response in answers_] == [200, 200]
    assert names.asked == ["flip.example"]


async def test_the_systems_own_names_work() -> None:
    """With loopback opened, `localhost` is found by the system's resolver and called."""
    async with receiver(answers(OK)) as there, door(LOOPBACK) as http_client:
        assert (await http_client.post(there.url(host="localhost"), HEADERS, BODY)).status == 200
        assert await http_client.check_target(there.url(host="localhost"), https_required=True) is None


async def test_plain_http_of_live_endpoints_stays_in_the_opened_ranges() -> None:
    """Where https is required, http goes to opened addresses only, whatever the name says by then."""
    names = Names(own=[["127.0.0.1"]], public=[["8.8.8.8"]])
    async with receiver(answers(OK)) as there, door(LOOPBACK, lookup=names) as http_client:
        own, public = there.url(host="own.example"), there.url(host="public.example")
        assert (await http_client.post(own, HEADERS, BODY, https_required=True)).status == 200
        assert await http_client.check_target(own, https_required=True) is None
        assert (await http_client.post(public, HEADERS, BODY, https_required=True)).error == "egress_blocked"
        assert await http_client.check_target(public, https_required=True) is not None
        assert await http_client.check_target(public) is None
        assert await http_client.check_target("https://public.example/", https_required=True) is None


async def test_cookies_are_not_kept() -> None:
    """What a receiver sets is not sent to it again."""
    raw = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1; Path=/\r\nContent-Length: 0\r\n\r\n"
    async with receiver(answers(raw)) as there, door(LOOPBACK) as http_client, http_client.client() as client:
        for _ in range(2):
            await http_client.post(there.url(host="localhost"), HEADERS, BODY)
            await client.post(there.url(host="localhost"), content=BODY)
    assert len(there.requests) == 4
    assert not any(b"cookie" in request.lower() for request in there.requests)


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY and its like do not send calls round the guard."""
    async with receiver(answers(OK)) as proxy, receiver(answers(OK)) as there:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        async with door(LOOPBACK) as http_client, http_client.client() as client:
            assert (await http_client.post(there.url(), HEADERS, BODY)).status == 200
            assert (await client.get(there.url())).status_code == 200
    assert proxy.connections == 0


async def test_a_cancelled_call_ends_and_lets_go() -> None:
    """Cancelling passes through as it is, and the receiver sees the connection end."""
    gone = asyncio.Event()

    async def waits(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()
        gone.set()

    async with receiver(waits) as there, door(LOOPBACK) as http_client:
        call = asyncio.create_task(http_client.post(there.url(), HEADERS, BODY))
        await there.asked.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await gone.wait()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for localhost and 127.0.0.1, with its key behind it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "self-signed.pem"
    pem = serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8
    path.write_bytes(signed.public_bytes(pem) + key.private_bytes(pem, plain, serialization.NoEncryption()))
    return path


def _server_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


async def test_certificates_are_verified(certificate: Path) -> None:
    """A certificate that nobody vouches for is `tls_error`, and the request never leaves."""
    async with receiver(answers(OK), tls=_server_tls(certificate)) as there, door(LOOPBACK) as http_client:
        response = await http_client.post(there.url(scheme="https"), HEADERS, BODY)
    assert (response.status, response.error) == (None, "tls_error")
    assert there.requests == []


async def test_an_operators_authority_is_trusted(certificate: Path) -> None:
    """With its authority given, the same receiver is called, by address and by name."""
    async with (
        receiver(answers(OK), tls=_server_tls(certificate)) as there,
        door(LOOPBACK, egress_ca_file=str(certificate)) as http_client,
        http_client.client() as client,
    ):
        for host in ("127.0.0.1", "localhost"):
            assert (await http_client.post(there.url(scheme="https", host=host), HEADERS, BODY)).status == 200
            assert (await client.get(there.url(scheme="https", host=host))).status_code == 200


async def test_the_certificate_must_be_the_names_own(certificate: Path) -> None:
    """A trusted certificate of another name is `tls_error`: the address is pinned, the name still counts."""
    async with (
        receiver(answers(OK), tls=_server_tls(certificate)) as there,
        door(LOOPBACK, egress_ca_file=str(certificate), lookup=Names(other=[["127.0.0.1"]])) as http_client,
    ):
        response = await http_client.post(there.url(scheme="https", host="other.example"), HEADERS, BODY)
    assert response.error == "tls_error"
    assert there.requests == []


async def test_plain_http_behind_https_is_a_tls_error() -> None:
    """A receiver that does not speak TLS where it should is told apart from one that is down."""

    async def speaks_plainly(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(speaks_plainly, "127.0.0.1", 0) as server, door(LOOPBACK) as http_client:
        port = server.sockets[0].getsockname()[1]
        response = await http_client.post(f"https://127.0.0.1:{port}/", HEADERS, BODY)
    assert response.error == "tls_error"


@pytest.mark.parametrize(
    ("script", "raised"),
    [
        (resets, httpx.ReadError),
        (answers_then_closes(b""), httpx.ReadError),
        (answers_then_closes(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), httpx.ReadError),
        (floods(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536), httpx.ReadError),
        (answers_then_closes(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), httpx.RemoteProtocolError),
        (hangs, httpx.ReadTimeout),
    ],
)
async def test_the_httpx_door_tells_unknown_from_unsent(script: Script, raised: type[httpx.TransportError]) -> None:
    """After bytes have left, no error claims that the connection never stood: the outcome is unknown."""
    async with (
        receiver(script) as there,
        door(LOOPBACK, attempt_timeout_s=0.4) as http_client,
        http_client.client() as client,
    ):
        with pytest.raises(raised) as caught:
            await client.post(there.url(), content=BODY)
        assert not isinstance(caught.value, httpx.ConnectError | httpx.ConnectTimeout)
    assert len(there.requests) == 1


async def test_the_httpx_door_says_refused_for_refused() -> None:
    """A closed port is ConnectError, and a name without an address as well."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        async with door(LOOPBACK, lookup=Names()) as http_client, http_client.client() as client:
            for url in (f"http://127.0.0.1:{closed.getsockname()[1]}/", "http://nowhere.example/"):
                with pytest.raises(httpx.ConnectError):
                    await client.post(url, content=BODY)


async def test_a_closed_client_leaves_the_door_open() -> None:
    """Clients come and go; the connections belong to the door."""
    async with receiver(answers(OK)) as there, door(LOOPBACK) as http_client:
        async with http_client.client() as client:
            assert (await client.post(there.url(), json={"a": 1})).text == "ok"
        assert (await http_client.post(there.url(), HEADERS, BODY)).status == 200
    assert there.connections == 1
