"""The limits of a connection: what an unknown client may send, hold and leave unread, before any key is read."""

import select
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from tests.api import Api, serve
from tests.raw_http import FLOODS, GET, MIB, POST, WAIT_S, answers, closed, connected, flood, read_all

PER_ADDRESS = 40
SETTINGS = {
    "SPINE_HEAD_TIMEOUT_S": "2",
    "SPINE_MAX_HEADER_BYTES": "32768",
    "SPINE_MAX_URL_BYTES": "16384",
    "SPINE_BODY_TIMEOUT_S": "2",
    "SPINE_ANSWER_TIMEOUT_S": "2",
    "SPINE_MAX_CONNECTIONS_PER_ADDRESS": str(PER_ADDRESS),
}


@pytest.fixture(scope="module")
def limited(module_database: str, module_redis_url: str) -> Iterator[Api]:
    """An API with short times and few connections per address."""
    with serve(module_database, module_redis_url, **SETTINGS) as running:
        yield running


def refusal(api: Api, *requests: bytes) -> tuple[int, str]:
    """Send the bytes; the server answers a problem document and closes. Returns its status and code."""
    with connected(api.url) as connection:
        for request in requests:
            connection.sendall(request)
        [(status, body)] = answers(read_all(connection))
    assert body["request_id"].startswith("req_")
    return status, body["code"]


def reset(connection: socket.socket) -> bool:
    """True if the server has reset the connection, or does so within the time. Nothing is read meanwhile."""
    connection.settimeout(1)
    for _ in range(int(WAIT_S)):
        try:
            connection.send(b"a")
        except TimeoutError:
            continue
        except ConnectionError:
            return True
    return False


@pytest.mark.parametrize("name", FLOODS)
def test_endless_heads_take_no_memory(name: str, limited: Api) -> None:
    """Of 128 MiB of one header, of headers, URL, trailers or chunk extensions, the API keeps next to nothing, and it closes."""
    process, (start, piece) = psutil.Process(), FLOODS[name]
    with connected(limited.url) as connection:
        connection.sendall(start)
        before = process.memory_info().rss
        flood(connection, piece, 128 * MIB)
        assert process.memory_info().rss - before < 50 * MIB
        assert closed(connection)
    assert httpx.get(f"{limited.url}/livez").status_code == 200


def test_a_refused_head_is_answered(limited: Api) -> None:
    """What exceeds a limit, or is no HTTP, gets a problem document that names the limit."""
    assert refusal(limited, GET + b"X-Long: " + b"a" * 60_000) == (431, "headers_too_large")
    assert refusal(limited, GET + b"X-Many: a\r\n" * 101 + b"\r\n") == (431, "headers_too_large")
    assert refusal(limited, b"GET /" + b"a" * 17_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n") == (414, "url_too_long")
    assert refusal(limited, b"GET /" + b"a" * 60_000) == (414, "url_too_long")
    assert refusal(limited, b"\x16\x03\x01 this is TLS") == (400, "malformed_request")
    trailer = POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-Trailer: "
    assert refusal(limited, trailer, b"a" * 60_000) == (431, "headers_too_large")


def test_the_largest_head_is_served(limited: Api) -> None:
    """A head below the limits is served: 100 header lines, 32,000 bytes, a URL of 8,192 of its 16,384."""
    many = b"".join(b"X-%d: %s\r\n" % (n, b"a" * 200) for n in range(99))
    with connected(limited.url) as connection:
        connection.sendall(b"GET /livez?" + b"a" * 8180 + b" HTTP/1.1\r\nHost: x\r\n" + many + b"\r\n")
        connection.sendall(GET + b"Connection: close\r\n\r\n")
        assert [status for status, _ in answers(read_all(connection))] == [200, 200]


@pytest.mark.parametrize("head", [b"GET /livez HTTP/1.1\r\n", GET + b"Host: y\r\n", b"GET /livez HTTP/1.0\r\n"])
def test_a_request_has_one_host(head: bytes, limited: Api) -> None:
    """A request without a Host header, or with two, is 400."""
    assert refusal(limited, head + b"\r\n") == (400, "invalid_host")


def test_a_trailer_is_no_header(limited: Api) -> None:
    """A trailer reaches neither its own request nor the next one of the connection."""
    body = b"2\r\n{}\r\n0\r\nAuthorization: Bearer x\r\nHost: y\r\n\r\n"
    with connected(limited.url) as connection:
        connection.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n" + body)
        connection.sendall(GET + b"Connection: close\r\n\r\n")
        assert [status for status, _ in answers(read_all(connection))] == [422, 200]


def test_no_upgrade_hides_a_request(limited: Api) -> None:
    """A request that asks for an upgrade is served as the last one of its connection; one with a body is refused."""
    upgrade = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
    with connected(limited.url) as connection:
        connection.sendall(GET + upgrade + b"\r\n" + GET + b"\r\n")
        assert [status for status, _ in answers(read_all(connection))] == [200]
    assert refusal(limited, POST + upgrade + b"Content-Length: 2\r\n\r\n{}") == (400, "upgrade_refused")


def test_pipelined_requests_are_answered_in_order(limited: Api) -> None:
    """Requests that are sent at once are all answered, in their order; a bad one after them is answered last."""
    paths = [b"/livez", b"/nothing", b"/readyz"] * 200
    with connected(limited.url) as connection:
        connection.sendall(b"".join(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path for path in paths) + b"bad\r\n\r\n")
        found = [status for status, _ in answers(read_all(connection))]
    assert found == [200, 404, 200] * 200 + [400]


def test_unread_answers_stop_the_reading(limited: Api) -> None:
    """Who pipelines requests and reads no answer is read no further, and is closed after the time for reading them."""
    process = psutil.Process()
    request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
    httpx.get(f"{limited.url}/openapi.json")
    before = process.memory_info().rss
    with connected(limited.url) as connection:
        taken = flood(connection, request * 1000, 64 * MIB)
        assert taken < 16 * MIB  # what the two sockets and one read hold
        assert process.memory_info().rss - before < 50 * MIB
        assert reset(connection)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (GET, [(408, "request_timeout")]),
        (POST + b'Content-Length: 100\r\n\r\n{"name"', [(408, "request_timeout")]),
        (b"", []),
        (GET + b"\r\n" + GET, [(200, None), (408, "request_timeout")]),
    ],
    ids=["head", "body", "nothing", "second-head"],
)
def test_half_sent_requests_are_closed(sent: bytes, expected: list[tuple[int, str | None]], limited: Api) -> None:
    """A head or a body that does not come in time is 408; a connection on which nothing came is closed without an answer."""
    with connected(limited.url) as connection:
        connection.sendall(sent)
        assert [(status, body.get("code")) for status, body in answers(read_all(connection))] == expected


def test_a_body_that_trickles_is_closed(limited: Api) -> None:
    """The time is for the whole body: a byte now and then does not renew it."""
    with connected(limited.url) as connection:
        connection.sendall(POST + b"Content-Length: 10000\r\n\r\n")
        for _ in range(10_000):
            if select.select([connection], [], [], 0.05)[0]:
                break
            connection.sendall(b" ")
        assert [status for status, _ in answers(read_all(connection))] == [408]


def test_half_sent_requests_keep_nobody_out(limited: Api) -> None:
    """Of 800 half-sent requests of one address at most the limit stay open, and others from there are served meanwhile."""
    address = urlsplit(limited.url)
    opened = []
    try:
        for _ in range(800):
            connection = socket.create_connection((address.hostname or "", address.port or 0), timeout=WAIT_S)
            connection.sendall(GET)
            opened.append(connection)
        for _ in range(20):
            assert httpx.get(f"{limited.url}/livez").status_code == 200
        still_open = [connection for connection in opened if not select.select([connection], [], [], 0)[0]]
        assert len(still_open) <= PER_ADDRESS
        assert all(closed(connection) for connection in opened)
    finally:
        for connection in opened:
            connection.close()


def test_a_body_that_goes_on_after_its_answer_is_closed(limited: Api) -> None:
    """Who is refused and sends on is read no further than one body's limit, and closed."""
    with connected(limited.url) as connection:
        connection.sendall(b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n")
        assert flood(connection, b"a" * 65536, 1024 * MIB) < 1024 * MIB
        assert connection.recv(12) == b"HTTP/1.1 401"
