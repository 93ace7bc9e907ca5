"""The load: a raw HTTP client that sends at fixed times, whatever the server does (open loop), or as fast as it answers.

In an open loop the latency of a call counts from the moment it was to be sent: a server that stalls cannot hide it by
making its callers late.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Self, cast


class Connection(asyncio.Protocol):
    """One kept connection; one call on it at a time."""

    def __init__(self) -> None:
        self._data = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the way."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own derives from nothing

    def connection_lost(self, error: Exception | None) -> None:
        """Break the call under way."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError(f"the server closed the connection: {error}"))

    def data_received(self, data: bytes) -> None:
        """Hand on an answer that is whole."""
        self._data = data = self._data + data if self._data else data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return
        at = data.lower().find(b"content-length: ", 0, end)
        if len(data) >= end + 4 + int(data[at + 16 : data.index(b"\r", at)]):
            self._data = b""
            assert self._answer is not None
            self._answer.set_result((int(data[9:12]), data[end + 4 :]))

    def call(self, request: bytes) -> "asyncio.Future[tuple[int, bytes]]":
        """Send a request; the future brings status and body."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def close(self) -> None:
        """Let go."""
        self._transport.close()


@dataclass(slots=True)
class Calls:
    """What came of a run of calls."""

    seconds: float = 0.0
    latency_s: list[float] = field(default_factory=list)
    answers: list[tuple[int, bytes]] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Calls per second."""
        return len(self.latency_s) / self.seconds

    def of(self, status: int) -> "Calls":
        """The calls that were answered with this status, over the same time."""
        mine = [n for n, (found, _) in enumerate(self.answers) if found == status]
        return Calls(self.seconds, [self.latency_s[n] for n in mine], [self.answers[n] for n in mine])

    def require(self, status: int) -> Self:
        """RuntimeError unless every answer has this status: a rate of refusals is not a rate."""
        for found, body in self.answers:
            if found != status:
                raise RuntimeError(f"expected {status}, got {found}: {body[:300]!r}")
        return self


class Load:
    """`async with Load(host, port, connections) as load`: so many kept connections to one server."""

    def __init__(self, host: str, port: int, connections: int) -> None:
        self._where = (host, port)
        self._size = connections

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._connections = [(await loop.create_connection(Connection, *self._where))[1] for _ in range(self._size)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self._connections:
            connection.close()

    async def as_fast_as_answered(self, requests: Iterable[bytes], for_s: float) -> Calls:
        """Closed loop: each connection sends its next request when it has the answer to the last."""
        calls, left = Calls(), iter(requests)
        start = time.perf_counter()
        until = start + for_s

        async def one_after_another(connection: Connection) -> None:
            for request in left:
                sent = time.perf_counter()
                if sent >= until:
                    return
                calls.answers.append(await connection.call(request))
                calls.latency_s.append(time.perf_counter() - sent)

        await asyncio.gather(*map(one_after_another, self._connections))
        calls.seconds = time.perf_counter() - start
        return calls

    async def at_rate(self, per_s: float, for_s: float, request: Callable[[int], bytes]) -> Calls:
        """Open loop: request n is to be sent n/`per_s` seconds after the start; latency counts from then."""
        calls, number = Calls(), itertools.count()
        total = int(per_s * for_s)
        start = time.perf_counter()

        async def take_turns(connection: Connection) -> None:
            for n in number:
                if n >= total:
                    return
                intended = start + n / per_s
                await asyncio.sleep(intended - time.perf_counter())
                calls.answers.append(await connection.call(request(n)))
                calls.latency_s.append(time.perf_counter() - intended)

        await asyncio.gather(*map(take_turns, self._connections))
        calls.seconds = time.perf_counter() - start
        return calls


def post(path: str, key: str, idempotency_key: str, body: bytes) -> bytes:
    """A POST as bytes."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\nIdempotency-Key: {idempotency_key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def get(path: str) -> bytes:
    """A GET as bytes."""
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()
