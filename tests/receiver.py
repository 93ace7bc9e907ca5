"""A webhook receiver on loopback with scripted responses per path. It is fast enough for measurements."""

import asyncio
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self, cast


@dataclass(frozen=True, slots=True)
class ScriptedResponse:
    """The response to one call: a status after a delay, no response (`hang`), or a closed connection (`reset`)."""

    status: int = 200
    delay_s: float = 0.0
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    hang: bool = False
    reset: bool = False

    def encoded(self) -> bytes:
        """The HTTP response as bytes."""
        head = f"HTTP/1.1 {self.status} X\r\nContent-Length: {len(self.body)}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        return head.encode() + b"\r\n" + self.body


@dataclass(frozen=True, slots=True)
class Call:
    """A received call. Header names are in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes
    at_s: float

    @property
    def event_id(self) -> str:
        """The id of the event in its body."""
        return self.headers.get("webhook-id", "")


OK = ScriptedResponse()
HANG = ScriptedResponse(hang=True)
RESET = ScriptedResponse(reset=True)


class Receiver:
    """Listens while its context is open. With `keep=False` it counts calls and stores none."""

    def __init__(self, *, keep: bool = True) -> None:
        self.calls: list[Call] = []
        self.count: Counter[str] = Counter()
        self.in_flight: Counter[str] = Counter()
        self.most_in_flight: Counter[str] = Counter()
        self.keep = keep
        self._script: dict[str, deque[ScriptedResponse]] = defaultdict(deque)
        self._always: dict[str, ScriptedResponse] = {}
        self._connections: set[_Connection] = set()
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, backlog=4096)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for connection in list(self._connections):
            connection.close()

    def url(self, path: str = "/") -> str:
        """The URL of a path."""
        return f"http://127.0.0.1:{self.port}{path}"

    def script(self, path: str, *responses: ScriptedResponse) -> None:
        """Set the responses to the next calls to a path, in order. The default response follows them."""
        self._script[path].extend(responses)

    def always(self, path: str, response: ScriptedResponse) -> None:
        """Set the default response to calls to a path."""
        self._always[path] = response

    def release(self, path: str) -> None:
        """Close the connections of the calls to a path that hang."""
        for connection in list(self._connections):
            if connection.hanging == path:
                connection.close()

    def to(self, path: str) -> list[Call]:
        """The calls to a path, in order of arrival."""
        return [call for call in self.calls if call.path == path]

    async def until(self, condition: Callable[[], Any], timeout_s: float = 30) -> None:
        """Wait until the condition is true. It is checked after each call, and every 50 ms. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._changed.clear()
                try:
                    async with asyncio.timeout(0.05):
                        await self._changed.wait()
                except TimeoutError:
                    continue

    async def until_calls(self, path: str, calls: int, timeout_s: float = 30) -> list[Call]:
        """Wait for this number of calls to a path, and return them."""
        await self.until(lambda: self.count[path] >= calls, timeout_s)
        return self.to(path)

    def _receive(self, path: str, headers: dict[str, str], body: bytes) -> ScriptedResponse:
        self.count[path] += 1
        if self.keep:
            self.calls.append(Call(path, headers, body, time.time()))
        self._changed.set()
        script = self._script.get(path)
        return script.popleft() if script else self._always.get(path, OK)


class _Connection(asyncio.Protocol):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._data = b""
        self.hanging: str | None = None
        self._path: str | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transport is no subclass
        self._receiver._connections.add(self)

    def connection_lost(self, _: Exception | None) -> None:
        self._receiver._connections.discard(self)
        self._end_call()

    def close(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._data = self._data + data if self._data else data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:end]
            length = _content_length(head)
            if len(self._data) < end + 4 + length:
                return
            body = self._data[end + 4 : end + 4 + length]
            self._data = self._data[end + 4 + length :]
            self._handle_request(head, body)

    def _handle_request(self, head: bytes, body: bytes) -> None:
        receiver = self._receiver
        path = head[: head.index(b"\r\n")].split(b" ")[1].decode()
        response = receiver._receive(path, _headers(head) if receiver.keep else {}, body)
        self._path = path
        receiver.in_flight[path] += 1
        receiver.most_in_flight[path] = max(receiver.most_in_flight[path], receiver.in_flight[path])
        if response.hang:
            self.hanging = path
        elif response.reset:
            self.close()
        elif response.delay_s:
            asyncio.get_running_loop().call_later(response.delay_s, self._reply, response)
        else:
            self._reply(response)

    def _reply(self, response: ScriptedResponse) -> None:
        self._end_call()
        if not self._transport.is_closing():
            self._transport.write(_PLAIN if response is OK else response.encoded())

    def _end_call(self) -> None:
        if self._path is not None:
            self._receiver.in_flight[self._path] -= 1
            self._path = None


_PLAIN = OK.encoded()


def _content_length(head: bytes) -> int:
    at = head.lower().find(b"content-length:")
    return int(head[at + 15 : (head.find(b"\r\n", at) if head.find(b"\r\n", at) >= 0 else len(head))]) if at >= 0 else 0


def _headers(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    return {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
