"""The HTTP client against real servers on this machine: responses, error codes, and addresses that it never calls."""

import asyncio
import gzip
import socket
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from spine.kernel.http_client import NotSentError
from tests.raw_receiver import (
    BODY,
    CONTINUE,
    HEADERS,
    LOOPBACK,
    OK,
    Flood,
    Names,
    Script,
    client,
    floods,
    hangs,
    receiver,
    resets,
    responds,
)


async def test_the_request_contains_nothing_else() -> None:
    """Body and headers are sent unchanged; the client adds only Host and Content-Length."""
    async with receiver(responds(OK)) as server, client(LOOPBACK) as http_client:
        response = await http_client.call(server.url("/a%2Fb?x=1&y=%7e"), HEADERS, BODY)
    assert (response.status, response.error, response.body_excerpt) == (200, None, b"ok")
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    request_line, *lines = head.decode().split("\r\n")
    assert request_line == "POST /a%2Fb?x=1&y=%7e HTTP/1.1"
    assert body == BODY
    assert {line.partition(":")[0].lower(): line.partition(": ")[2] for line in lines} == {
        "host": f"127.0.0.1:{server.port}",
        "content-length": str(len(BODY)),
        **{name.lower(): value for name, value in HEADERS.items()},
    }


@pytest.mark.parametrize("status", [204, 400, 410, 429, 500, 503, 599])
async def test_a_status_is_returned_with_retry_after_and_times(status: int) -> None:
    """A status is returned without a verdict, with Retry-After as received; times are UTC and end after the start."""
    raw = f"HTTP/1.1 {status} X\r\nRetry-After: 17\r\nContent-Length: 0\r\n\r\n".encode()
    before = datetime.now(UTC)
    async with receiver(responds(raw)) as server, client(LOOPBACK) as http_client:
        response = await http_client.call(server.url(), HEADERS, BODY)
    assert (response.status, response.error, response.retry_after) == (status, None, "17")
    assert before <= response.started_at <= response.ended_at
    assert response.ended_at - response.started_at == timedelta(seconds=response.duration_s)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    """A 3xx is the response; the target of the redirect gets no connection."""
    async with receiver(responds(OK)) as redirected:
        raw = f"HTTP/1.1 {status} X\r\nLocation: {redirected.url()}\r\nContent-Length: 0\r\n\r\n".encode()
        async with receiver(responds(raw)) as server, client(LOOPBACK) as http_client:
            response = await http_client.call(server.url(), HEADERS, BODY)
            async with http_client.client() as over_httpx:
                by_httpx = await over_httpx.post(server.url(), content=BODY)
    assert response.status == by_httpx.status_code == status
    assert redirected.connections == 0


async def test_connections_are_reused() -> None:
    """Posts to one receiver use one connection, also if the body is longer than the excerpt."""
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000
    async with receiver(responds(raw)) as server, client(LOOPBACK) as http_client:
        responses = [await http_client.call(server.url(), HEADERS, BODY) for _ in range(3)]
    assert [(one.status, one.error, len(one.body_excerpt)) for one in responses] == [(200, None, 8192)] * 3
    assert server.connections == 1


async def test_a_closed_httpx_client_leaves_the_connections_open() -> None:
    """The HTTP client owns the connections; an httpx client only borrows them."""
    async with receiver(responds(OK)) as server, client(LOOPBACK) as http_client:
        async with http_client.client() as over_httpx:
            assert (await over_httpx.post(server.url(), json={"a": 1})).text == "ok"
        assert (await http_client.call(server.url(), HEADERS, BODY)).status == 200
    assert server.connections == 1


async def test_bodies_are_never_decompressed() -> None:
    """A compressed body is kept as received, so a decompression bomb does no harm."""
    packed = gzip.compress(b"\0" * 10_000_000)
    raw = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n".encode() + packed
    async with receiver(responds(raw)) as server, client(LOOPBACK) as http_client:
        response = await http_client.call(server.url(), HEADERS, BODY)
        async with http_client.client() as over_httpx:
            with pytest.raises(httpx.RemoteProtocolError, match="compressed"):
                await over_httpx.get(server.url())
    assert (response.status, response.body_excerpt) == (200, packed[:8192])


HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("script", "status", "error", "raised"),
    [
        (hangs, None, "timeout", httpx.ReadTimeout),
        (responds(b"HTTP/1.1 200 OK\r\nContent-"), None, "timeout", httpx.ReadTimeout),
        (responds(HALF), 200, "timeout", httpx.ReadTimeout),
        (responds(b"HTTP/1.1 100 Continue\r\n\r\n"), None, "timeout", httpx.ReadTimeout),
        (resets, None, "connection_reset", httpx.ReadError),
        (responds(b"", close=True), None, "connection_reset", httpx.ReadError),
        (responds(HALF, close=True), 200, "connection_reset", httpx.ReadError),
        (responds(CHUNKED + b"5\r\nhel", close=True), 200, "connection_reset", httpx.ReadError),
        (responds(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", close=True), None, "invalid_response", httpx.RemoteProtocolError),
        (responds(b"HTTP/1.1 abc OK\r\n\r\n", close=True), None, "invalid_response", httpx.RemoteProtocolError),
        (responds(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n"), None, "invalid_response", httpx.RemoteProtocolError),
        (responds(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"), None, "invalid_response", httpx.RemoteProtocolError),
        (responds(CHUNKED + b"zz\r\n"), None, "invalid_response", httpx.RemoteProtocolError),
        (floods(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536), 200, "response_too_large", httpx.ReadError),
        (floods(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", b"x" * 65536), 200, "response_too_large", httpx.ReadError),
        (floods(CHUNKED, b"1000\r\n" + b"x" * 4096 + b"\r\n"), 200, "response_too_large", httpx.ReadError),
    ],
)  # fmt: skip
async def test_incomplete_and_invalid_responses_have_codes(
    script: Script, status: int | None, error: str, raised: type[httpx.TransportError]
) -> None:
    """Every failure after the request was sent has its code, and in httpx an error that says that it was sent.

    The time-out covers the whole response. A body over the cap is not read further, and its first 8 KiB are kept.
    """
    timeout_s = 0.3 if error == "timeout" else 10
    async with receiver(script) as server, client(LOOPBACK, attempt_timeout_s=timeout_s) as http_client:
        response = await http_client.call(server.url(), HEADERS, BODY)
        async with http_client.client() as over_httpx:
            with pytest.raises(raised):
                await over_httpx.post(server.url(), content=BODY)
        assert len(server.requests) == 2
    assert (response.status, response.error) == (status, error)
    if error == "response_too_large":
        assert response.body_excerpt == b"x" * 8192


class SlowNames(Names):
    """A name server that never answers."""

    async def __call__(self, host: str) -> list[str]:
        await asyncio.Event().wait()
        return [host]


@pytest.mark.parametrize(("scheme", "lookup"), [("https", None), ("http", SlowNames())])
async def test_the_connect_timeout_covers_resolution_and_tls(scheme: str, lookup: Names | None) -> None:
    """A TLS handshake or a name server that hangs is `connect_timeout`."""
    host = "127.0.0.1" if lookup is None else "slow.example"
    async with receiver(hangs) as server, client(LOOPBACK, connect_timeout_s=0.3, lookup=lookup) as http_client:
        response = await http_client.call(server.url(host=host, scheme=scheme), HEADERS, BODY)
    assert (response.status, response.error) == (None, "connect_timeout")


async def test_nothing_is_written_if_the_caller_no_longer_wants_it() -> None:
    """`may_send` is asked once the connection stands, a new or a reused one. If it says no, the receiver gets no byte."""
    answers = [True, False, True, False]
    established: list[int] = []

    async with receiver(responds(OK)) as server, client(LOOPBACK) as http_client:

        def may_send() -> bool:
            established.append(server.connections)
            return answers.pop(0)

        await http_client.call(server.url(), HEADERS, BODY, may_send=may_send)
        with pytest.raises(NotSentError):
            await http_client.call(server.url(), HEADERS, BODY, may_send=may_send)
        await http_client.call(server.url(), HEADERS, BODY, may_send=may_send)
        with pytest.raises(NotSentError):
            await http_client.call(server.url(), HEADERS, BODY, may_send=may_send)
        await http_client.call(server.url(), HEADERS, BODY)
    assert len(server.requests) == 3
    assert answers == []


async def test_an_upgrade_is_no_success() -> None:
    """Status 101 is returned at once, and the connection is closed."""
    ended = asyncio.Event()

    async def upgrades(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
        await reader.read()
        ended.set()

    async with receiver(upgrades) as server, client(LOOPBACK) as http_client:
        response = await http_client.call(server.url(), HEADERS, BODY)
        await ended.wait()
    assert (response.status, response.error) == (101, None)


async def test_failures_to_connect_have_codes() -> None:
    """A closed port is `connect_refused`, an unknown name `dns_error`; both are ConnectError in httpx.

    An unknown name is no reason to refuse an endpoint.
    """
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        urls = {
            f"http://127.0.0.1:{closed.getsockname()[1]}/": "connect_refused",
            "http://nowhere.example/": "dns_error",
            "http://empty.example/": "dns_error",
        }
        async with client(LOOPBACK, lookup=Names(empty=[[]])) as http_client, http_client.client() as over_httpx:
            for url, error in urls.items():
                response = await http_client.call(url, HEADERS, BODY)
                assert (response.status, response.error) == (None, error)
                with pytest.raises(httpx.ConnectError):
                    await over_httpx.post(url, content=BODY)
            assert await http_client.check_target("https://nowhere.example/") is None


async def test_invalid_headers_are_not_sent() -> None:
    """A header value with a line break is refused before anything is sent."""
    async with receiver(responds(OK)) as server, client(LOOPBACK) as http_client:
        response = await http_client.call(server.url(), {"x": "a\r\nHost: evil"}, BODY)
    assert response.error == "invalid_request"
    assert server.requests == []


@pytest.mark.parametrize(
    ("host", "error"),
    [
        *((host, "egress_blocked") for host in ("127.0.0.1", "localhost", "0.0.0.0", "①②⑦.0.0.1")),
        *((f"[{host}]", "egress_blocked") for host in ("::ffff:127.0.0.1", "::ffff:7f00:1", "::127.0.0.1", "64:ff9b::7f00:1")),
        *((host, "invalid_url") for host in ("2130706433", "0x7f000001", "0x7f.1", "127.1", "0177.0.0.1", "127.0.0.1.", "a@127.0.0.1")),
        *((host, "egress_blocked") for host in ("inside.example", "both.example")),
    ],
)  # fmt: skip
async def test_loopback_is_blocked_in_every_spelling(host: str, error: str) -> None:
    """Without an allowed range no spelling and no name of loopback is connected to: by post, at create, or by httpx.

    httpx's API does not judge the URL; there the socket factory refuses the address.
    """
    names = Names(inside=[["127.0.0.1"]], both=[["10.0.0.1", "127.0.0.1"]])
    lookup = names if host.endswith(".example") else None
    async with receiver(responds(OK)) as server, client(lookup=lookup) as http_client:
        response = await http_client.call(server.url(host=host), HEADERS, BODY)
        refused = await http_client.check_target(server.url(host=host))
        async with http_client.client() as over_httpx:
            with pytest.raises((httpx.ConnectError, httpx.UnsupportedProtocol, httpx.InvalidURL, ValueError)):
                await over_httpx.get(server.url(host=host))
    assert (response.status, response.error) == (None, error)
    assert refused is not None
    assert refused.code == error
    assert server.connections == 0


async def test_only_permitted_addresses_of_a_name_are_called() -> None:
    """Blocked addresses of a name are dropped; the call goes to an allowed one with the name as Host."""
    names = Names(mixed=[["10.0.0.1", "127.0.0.1"]])
    async with receiver(responds(OK)) as server, client("127.0.0.1/32", lookup=names) as http_client:
        response = await http_client.call(server.url(host="mixed.example"), HEADERS, BODY)
    assert response.status == 200
    assert f"Host: mixed.example:{server.port}".encode() in server.requests[0]


async def test_dns_rebinding_is_blocked() -> None:
    """A name that is permitted at create and resolves to a blocked address later is not called."""
    names = Names(rebind=[["127.0.0.2"], ["127.0.0.1"]])
    async with receiver(responds(OK)) as server, client("127.0.0.2/32", lookup=names) as http_client:
        assert await http_client.check_target(server.url(host="rebind.example")) is None
        response = await http_client.call(server.url(host="rebind.example"), HEADERS, BODY)
    assert response.error == "egress_blocked"
    assert server.connections == 0


async def test_a_call_resolves_once() -> None:
    """The judged address is the called address: the name is not resolved a second time."""
    names = Names(flip=[["127.0.0.1"], ["127.0.0.2"]])
    async with receiver(responds(OK)) as server, client("127.0.0.1/32", lookup=names) as http_client:
        responses = [await http_client.call(server.url(host="flip.example"), HEADERS, BODY) for _ in range(2)]
    assert [response.status for response in responses] == [200, 200]
    assert names.queries == ["flip.example"]


async def test_the_system_resolver_is_used() -> None:
    """With loopback allowed, the system's resolver finds `localhost`, and it is called."""
    async with receiver(responds(OK)) as server, client(LOOPBACK) as http_client:
        assert (await http_client.call(server.url(host="localhost"), HEADERS, BODY)).status == 200
        assert await http_client.check_target(server.url(host="localhost"), https_required=True) is None


async def test_plain_http_of_live_endpoints_is_for_allowed_ranges_only() -> None:
    """If https is required, http goes only to allowed addresses, whatever the name resolves to at the call."""
    names = Names(own=[["127.0.0.1"]], public=[["8.8.8.8"]])
    async with receiver(responds(OK)) as server, client(LOOPBACK, lookup=names) as http_client:
        own, public = server.url(host="own.example"), server.url(host="public.example")
        assert (await http_client.call(own, HEADERS, BODY, https_required=True)).status == 200
        assert await http_client.check_target(own, https_required=True) is None
        assert (await http_client.call(public, HEADERS, BODY, https_required=True)).error == "egress_blocked"
        assert await http_client.check_target(public, https_required=True) is not None
        assert await http_client.check_target(public) is None
        assert await http_client.check_target("https://public.example/", https_required=True) is None


async def test_cookies_are_not_kept() -> None:
    """A cookie that a receiver sets is not sent to it."""
    raw = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1; Path=/\r\nContent-Length: 0\r\n\r\n"
    async with (
        receiver(responds(raw)) as server,
        client(LOOPBACK) as http_client,
        http_client.client() as over_httpx,
    ):
        for _ in range(2):
            await http_client.call(server.url(host="localhost"), HEADERS, BODY)
            await over_httpx.post(server.url(host="localhost"), content=BODY)
    assert len(server.requests) == 4
    assert not any(b"cookie" in request.lower() for request in server.requests)


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY and similar variables do not route calls around the SSRF guard."""
    async with receiver(responds(OK)) as proxy, receiver(responds(OK)) as server:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        async with client(LOOPBACK) as http_client, http_client.client() as over_httpx:
            assert (await http_client.call(server.url(), HEADERS, BODY)).status == 200
            assert (await over_httpx.get(server.url())).status_code == 200
    assert proxy.connections == 0


async def test_a_cancelled_call_closes_its_connection() -> None:
    """A cancellation propagates, and the receiver sees the connection end."""
    ended = asyncio.Event()

    async def waits(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()
        ended.set()

    async with receiver(waits) as server, client(LOOPBACK) as http_client:
        call = asyncio.create_task(http_client.call(server.url(), HEADERS, BODY))
        await server.requested.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await ended.wait()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for localhost and 127.0.0.1, with its private key."""
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


@pytest.fixture
def server_tls(certificate: Path) -> ssl.SSLContext:
    """The TLS side of a server with that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.mark.parametrize(("trusted", "host"), [(False, "127.0.0.1"), (True, "other.example")])
async def test_certificates_are_verified(
    trusted: bool, host: str, certificate: Path, server_tls: ssl.SSLContext
) -> None:
    """An untrusted certificate, and a trusted one of another name, are `tls_error`; the request is not sent."""
    ca_file = str(certificate) if trusted else None
    names = Names(other=[["127.0.0.1"]])
    async with (
        receiver(responds(OK), tls=server_tls) as server,
        client(LOOPBACK, egress_ca_file=ca_file, lookup=names) as http_client,
    ):
        response = await http_client.call(server.url(scheme="https", host=host), HEADERS, BODY)
    assert (response.status, response.error) == (None, "tls_error")
    assert server.requests == []


async def test_an_operators_authority_is_trusted(certificate: Path, server_tls: ssl.SSLContext) -> None:
    """With the operator's CA file the same receiver is called, by address and by name."""
    async with (
        receiver(responds(OK), tls=server_tls) as server,
        client(LOOPBACK, egress_ca_file=str(certificate)) as http_client,
        http_client.client() as over_httpx,
    ):
        for host in ("127.0.0.1", "localhost"):
            assert (await http_client.call(server.url(scheme="https", host=host), HEADERS, BODY)).status == 200
            assert (await over_httpx.get(server.url(scheme="https", host=host))).status_code == 200


async def test_plain_http_on_an_https_url_is_a_tls_error() -> None:
    """A receiver that does not use TLS has another code than one that is down."""

    async def responds_without_tls(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        writer.close()
        await writer.wait_closed()

    async with (
        await asyncio.start_server(responds_without_tls, "127.0.0.1", 0) as server,
        client(LOOPBACK) as http_client,
    ):
        port = server.sockets[0].getsockname()[1]
        response = await http_client.call(f"https://127.0.0.1:{port}/", HEADERS, BODY)
    assert response.error == "tls_error"


async def test_an_endless_response_over_tls_is_ended(certificate: Path, server_tls: ssl.SSLContext) -> None:
    """Over TLS it is `invalid_response` too, and the connection is closed at once."""
    flood = Flood(b"", CONTINUE * 1000)
    async with (
        receiver(flood, tls=server_tls) as server,
        client(LOOPBACK, egress_ca_file=str(certificate), attempt_timeout_s=30) as http_client,
    ):
        response = await http_client.call(server.url(scheme="https"), HEADERS, BODY)
        await flood.ended.wait()
    assert (response.status, response.error) == (None, "invalid_response")
