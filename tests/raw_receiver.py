"""Receivers that respond with raw bytes, a fake name server, and a client that may call this machine."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

from spine.kernel.http_client import HttpClient
from spine.kernel.http_client.ssrf_guard import Lookup
from spine.kernel.settings import EgressSettings

LOOPBACK = "127.0.0.0/8"
HEADERS = {"webhook-id": "evt_1", "User-Agent": "Spine/0.1.0", "Content-Type": "application/json"}
BODY = '{"text":"naïve 🚀"}'.encode()
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Receiver:
    """The requests and connections that a test server got."""

    port: int = 0
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    requested: asyncio.Event = field(default_factory=asyncio.Event)

    def url(self, path: str = "/hook", host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def responds(raw: bytes, *, close: bool = False) -> Script:
    """Responds to every request with these bytes; `close` then ends the connection."""

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()
        if close:
            writer.close()

    return script


async def hangs(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Never responds; ends when the client closes the connection."""
    await reader.read()


async def resets(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Ends the connection with a TCP reset."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def floods(head: bytes, chunk: bytes) -> Script:
    """Sends an endless body."""

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while not writer.is_closing():
            writer.write(chunk)
            await writer.drain()

    return script


# More than the socket buffers of both sides take on any system that we know; an endless response passes it in a moment.
MAX_SENT_BYTES = 32 * 1024 * 1024


class Flood:
    """Sends a start and then one part without end, until the client closes the connection."""

    def __init__(self, start: bytes, part: bytes, pause_s: float = 0) -> None:
        self._start, self._part, self._pause_s = start, part, pause_s
        self.parts = 0
        self.ended = asyncio.Event()

    async def __call__(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(self._start)
            while len(self._part) * self.parts <= MAX_SENT_BYTES:
                writer.write(self._part)
                self.parts += 1
                await writer.drain()
                await asyncio.sleep(self._pause_s)
        except ConnectionError:
            self.ended.set()


@asynccontextmanager
async def receiver(script: Script, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """A server on a free port of IPv4 loopback that reads whole requests; the script responds."""
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
                stats.requested.set()
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
    """A fake name server: each name has a list of answers, given in turn; the last one repeats."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self._answers = answers
        self.queries: list[str] = []

    async def __call__(self, host: str) -> list[str]:
        self.queries.append(host)
        turns = self._answers.get(host.partition(".")[0])
        if turns is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return turns.pop(0) if len(turns) > 1 else turns[0]


def client(*allow: str, lookup: Lookup | None = None, **settings: Any) -> HttpClient:
    """A client with these ranges allowed and short time-outs."""
    given = {"connect_timeout_s": 2.0, "attempt_timeout_s": 2.0, **settings}
    return HttpClient(EgressSettings(egress_allow=tuple(ip_network(text) for text in allow), **given), lookup=lookup)
