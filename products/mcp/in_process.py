"""Requests to an ASGI application of this process."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Scope

_CARRIED: Final = (b"host", b"authorization", b"x-forwarded-for")
"""Headers of a request that go on to the request made for it: who calls, and from where."""


@dataclass(slots=True)
class Answer:
    """An answer. `size` counts all bytes of its body; `body` holds them only up to the limit."""

    status: int = 0
    raw_headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    size: int = 0

    @property
    def headers(self) -> Headers:
        """The headers, by name in any case."""
        return Headers(raw=self.raw_headers)


def scope_for(caller: Scope, method: str, path: str, query: str, headers: Mapping[str, str]) -> Scope:
    """Return the scope of a request that is made for the caller of another one, with the caller's address and key."""
    own = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    carried = [(name, value) for name, value in caller["headers"] if name in _CARRIED]
    connection = {name: caller[name] for name in ("type", "asgi", "http_version", "scheme", "client", "server")}
    return {
        **connection,
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": carried + own,
    }


async def request_in_process(app: ASGIApp, scope: Scope, body: bytes, max_bytes: int | None = None) -> Answer:
    """Make a request and return the answer, with at most `max_bytes` of its body."""
    answer = Answer()
    waiting: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        # After the body comes nothing: the caller does not disconnect before the answer is there.
        return waiting.pop() if waiting else await asyncio.get_running_loop().create_future()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status, answer.raw_headers = message["status"], list(message.get("headers", ()))
        elif message["type"] == "http.response.body":
            part = message.get("body", b"")
            answer.size += len(part)
            if max_bytes is None or answer.size <= max_bytes:
                answer.body += part

    await app(scope, receive, send)
    return answer
