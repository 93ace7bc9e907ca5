"""Load generator: a raw HTTP client that sends at fixed times (open loop), or when the last response arrives (closed loop).

In an open loop the latency of a call counts from its scheduled time, so that a stalled server cannot hide its delay
by delaying its callers.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Self, cast


class Connection(asyncio.Protocol):
    """A persistent connection with one call at a time."""

    def __init__(self) -> None:
        self._data = b""
        self._response: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport for requests."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transport has no base class

    def connection_lost(self, error: Exception | None) -> None:
        """Fail the current call."""
        if self._response is not None and not self._response.done():
            self._response.set_exception(ConnectionError(f"the server closed the connection: {error}"))

    def data_received(self, data: bytes) -> None:
        """Complete the current call when its response is complete."""
        self._data = data = self._data + data if self._data else data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return
        at = data.lower().find(b"content-length: ", 0, end)
        if len(data) >= end + 4 + int(data[at + 16 : data.index(b"\r", at)]):
            self._data = b""
            assert self._response is not None
            self._response.set_result((int(data[9:12]), data[end + 4 :]))

    def call(self, request: bytes) -> "asyncio.Future[tuple[int, bytes]]":
        """Send a request. The future returns status and body."""
        self._response = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._response

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()


@dataclass(slots=True)
class Calls:
    """The results of a run of calls."""

    seconds: float = 0.0
    latency_s: list[float] = field(default_factory=list)
    responses: list[tuple[int, bytes]] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Calls per second."""
        return len(self.latency_s) / self.seconds

    def of(self, status: int) -> "Calls":
        """Return the calls with this status, over the same time."""
        matching = [n for n, (found, _) in enumerate(self.responses) if found == status]
        return Calls(self.seconds, [self.latency_s[n] for n in matching], [self.responses[n] for n in matching])

    def require(self, status: int) -> Self:
        """Return self. Raises RuntimeError if a response has another status, because a rate of refusals is not a rate."""
        for found, body in self.responses:
            if found != status:
                raise RuntimeError(f"expected {status}, got {found}: {body[:300]!r}")
        return self


class Load:
    """`async with Load(host, port, connections) as load` opens persistent connections to one server."""

    def __init__(self, host: str, port: int, connections: int) -> None:
        self._address = (host, port)
        self._size = connections

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._connections = [(await loop.create_connection(Connection, *self._address))[1] for _ in range(self._size)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self._connections:
            connection.close()

    async def closed_loop(self, requests: Iterable[bytes], for_s: float) -> Calls:
        """Send on each connection the next request when the last response has arrived."""
        calls, remaining = Calls(), iter(requests)
        start = time.perf_counter()
        until = start + for_s

        async def send_sequentially(connection: Connection) -> None:
            for request in remaining:
                sent = time.perf_counter()
                if sent >= until:
                    return
                calls.responses.append(await connection.call(request))
                calls.latency_s.append(time.perf_counter() - sent)

        await asyncio.gather(*map(send_sequentially, self._connections))
        calls.seconds = time.perf_counter() - start
        return calls

    async def open_loop(self, per_s: float, for_s: float, request: Callable[[int], bytes]) -> Calls:
        """Send request n at n/`per_s` seconds after the start. Latency counts from that time."""
        calls, number = Calls(), itertools.count()
        total = int(per_s * for_s)
        start = time.perf_counter()

        async def send_scheduled(connection: Connection) -> None:
            for n in number:
                if n >= total:
                    return
                scheduled = start + n / per_s
                await asyncio.sleep(scheduled - time.perf_counter())
                calls.responses.append(await connection.call(request(n)))
                calls.latency_s.append(time.perf_counter() - scheduled)

        await asyncio.gather(*map(send_scheduled, self._connections))
        calls.seconds = time.perf_counter() - start
        return calls


def post(path: str, key: str, idempotency_key: str, body: bytes) -> bytes:
    """Return a POST request as bytes."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\nIdempotency-Key: {idempotency_key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def get(path: str, key: str | None = None) -> bytes:
    """Return a GET request as bytes, with the API key if one is given."""
    authorization = f"Authorization: Bearer {key}\r\n" if key else ""
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\n{authorization}\r\n".encode()
