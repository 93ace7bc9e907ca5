"""What a receiver may send around a response's body, against real servers that send it without end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from spine.kernel.http_client.response_limits import MAX_INFORMATIONAL
from tests.raw_receiver import (
    BODY,
    CONTINUE,
    HEADERS,
    LOOPBACK,
    MAX_SENT_BYTES,
    OK,
    Flood,
    Receiver,
    client,
    receiver,
    responds,
)

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"

FLOODS = {
    "100 Continue": (b"", CONTINUE * 1000, None),
    "103 with large headers": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: " + b"x" * 8000 + b"\r\n\r\n", None),
    "blank lines": (b"", b"\r\n" * 10_000, None),
    "one header": (b"HTTP/1.1 200 OK\r\nX: ", b"x" * 10_000, None),
    "spaces before a header's value": (b"HTTP/1.1 200 OK\r\nX:", b" " * 10_000, None),
    "many headers": (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 1000, None),
    "a chunk extension": (CHUNKED + b"5;x=", b"a" * 10_000, 200),
    "zeros of a chunk's size": (CHUNKED, b"0" * 10_000, 200),
    "chunks with extensions": (CHUNKED, b"1;name=value\r\nx\r\n" * 1000, 200),
    "trailers": (CHUNKED + b"0\r\n", b"x: y\r\n" * 1000, 200),
    "spaces in a trailer": (CHUNKED + b"0\r\nx:", b" " * 10_000, 200),
}


@asynccontextmanager
async def flooding(start: bytes, part: bytes, pause_s: float = 0) -> AsyncIterator[tuple[Flood, Receiver]]:
    """A receiver that floods each call."""
    flood = Flood(start, part, pause_s)
    async with receiver(flood) as server:
        yield flood, server


@pytest.mark.parametrize(("start", "part", "status"), FLOODS.values(), ids=FLOODS.keys())
async def test_an_endless_response_is_ended(start: bytes, part: bytes, status: int | None) -> None:
    """Whatever a receiver sends without end around the body, it is `invalid_response`, and the connection is closed at once."""
    async with flooding(start, part) as (flood, server), client(LOOPBACK, attempt_timeout_s=30) as http_client:
        response = await http_client.call(server.url(), HEADERS, BODY)
        await flood.ended.wait()
    assert (response.error, response.body_excerpt.strip(b"x")) == ("invalid_response", b"")
    # The head may be gone too, if a limit is passed by the same read.
    assert response.status in {None, status}
    assert len(part) * flood.parts < MAX_SENT_BYTES


@pytest.mark.parametrize(("start", "part", "status"), FLOODS.values(), ids=FLOODS.keys())
async def test_an_endless_response_is_ended_in_httpx_too(start: bytes, part: bytes, status: int | None) -> None:
    """The client for providers has the same limits: a RemoteProtocolError, and the connection is closed at once."""
    del status
    async with (
        flooding(start, part) as (flood, server),
        client(LOOPBACK, attempt_timeout_s=30) as http_client,
        http_client.client() as over_httpx,
    ):
        with pytest.raises(httpx.RemoteProtocolError):
            await over_httpx.post(server.url(), content=BODY)
        await flood.ended.wait()


async def test_informational_responses_are_counted() -> None:
    """However slowly they come, one more than the limit ends the call."""
    async with flooding(b"", CONTINUE, 0.02) as (flood, server), client(LOOPBACK, attempt_timeout_s=30) as http_client:
        response = await http_client.call(server.url(), HEADERS, BODY)
        await flood.ended.wait()
    assert (response.status, response.error) == (None, "invalid_response")
    assert MAX_INFORMATIONAL < flood.parts < 3 * MAX_INFORMATIONAL


async def test_a_drip_does_not_prolong_a_call_of_httpx() -> None:
    """The read time-out covers the whole call, also if a byte arrives every now and then."""
    for start in (b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"):
        async with (
            flooding(start, b"x", 0.02) as (flood, server),
            client(LOOPBACK, attempt_timeout_s=0.3) as http_client,
            http_client.client() as over_httpx,
        ):
            with pytest.raises(httpx.ReadTimeout):
                await over_httpx.post(server.url(), content=BODY)
            await flood.ended.wait()


@pytest.mark.parametrize(
    ("raw", "length"),
    [
        (CONTINUE + EARLY_HINTS * 3 + OK, 2),
        (CONTINUE * MAX_INFORMATIONAL + OK, 2),
        (b"HTTP/1.1 200 OK\r\n" + b"".join(b"x-%d: %s\r\n" % (n, b"y" * 200) for n in range(100)) + b"Content-Length: 0\r\n\r\n", 0),
        (CHUNKED + b"1\r\nx\r\n" * 8000 + b"0\r\n\r\n", 8000),
        (CHUNKED + (b"10\r\n" + b"x" * 16 + b"\r\n") * 60_000 + b"0\r\nx-sum: 1\r\n\r\n", 8192),
        (CHUNKED + (b"1000;a=b\r\n" + b"x" * 4096 + b"\r\n") * 200 + b"0\r\n\r\n", 8192),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000, 8192),
    ],
)  # fmt: skip
async def test_a_complete_response_within_the_limits_is_accepted(raw: bytes, length: int) -> None:
    """Informational responses, many headers, chunks of one byte, extensions and trailers are valid, in both clients."""
    async with (
        receiver(responds(raw)) as server,
        client(LOOPBACK, attempt_timeout_s=30) as http_client,
        http_client.client() as over_httpx,
    ):
        responses = [await http_client.call(server.url(), HEADERS, BODY) for _ in range(2)]
        by_httpx = await over_httpx.post(server.url(), content=BODY)
    assert [(one.status, one.error, len(one.body_excerpt)) for one in responses] == [(200, None, length)] * 2
    assert by_httpx.status_code == 200
    assert server.connections == 1


async def test_the_limit_is_a_setting() -> None:
    """A head above SPINE_MAX_RESPONSE_HEAD_BYTES is refused, and accepted where the operator has set more."""
    raw = b"HTTP/1.1 200 OK\r\n" + b"".join(b"x-%d: %s\r\n" % (n, b"y" * 4000) for n in range(5))
    async with receiver(responds(raw + b"Content-Length: 0\r\n\r\n")) as server:
        for max_bytes, error in ((8192, "invalid_response"), (65536, None)):
            async with client(LOOPBACK, max_response_head_bytes=max_bytes) as http_client:
                assert (await http_client.call(server.url(), HEADERS, BODY)).error == error


async def test_a_body_that_becomes_invalid_has_its_code() -> None:
    """A chunk that is no chunk, long after the head, is `invalid_response` and no lost connection."""

    async def responds_in_two_parts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED + b"2\r\nok\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(b"zz\r\n")
        await reader.read()

    async with receiver(responds_in_two_parts) as server, client(LOOPBACK) as http_client:
        response = await http_client.call(server.url(), HEADERS, BODY)
    assert (response.status, response.error) == (200, "invalid_response")


async def test_bytes_after_a_response_close_the_connection() -> None:
    """A receiver that goes on sending after its response cannot answer the next call in advance, nor flood an idle connection."""
    ended = asyncio.Event()

    async def goes_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n" * 1000)
        await reader.read()
        ended.set()

    async with receiver(goes_on) as server, client(LOOPBACK) as http_client:
        first = await http_client.call(server.url(), HEADERS, BODY)
        await ended.wait()
        second = await http_client.call(server.url(), HEADERS, BODY)
    assert (first.status, second.status, server.connections) == (200, 200, 2)
