"""What all fakes of HTTP providers share: a server on loopback, outcomes by recipient, and callbacks to Spine."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

Script = tuple[int, Any]
"""(HTTP status, body) of a refusal."""
OUTCOMES = ("accepted", "recipient", "transient", "lost", "rate", "config")
"""Outcomes of a call by the last digit of the recipient's number."""


def number_of(outcome: str) -> str:
    """A recipient whose calls have this outcome."""
    return f"+91981234500{OUTCOMES.index(outcome)}"


def outcome_of(number: str) -> str:
    """The outcome that a recipient's number scripts."""
    digit = int(number[-1])
    return OUTCOMES[digit] if digit < len(OUTCOMES) else "accepted"


@dataclass(slots=True)
class Sent:
    """A message that the provider took."""

    id: str
    attempt_id: str
    fields: Mapping[str, Any]
    status: str = "queued"


@dataclass
class FakeService:
    """A provider. `sent` are the messages that it took; `refused` are requests that its documents do not allow."""

    url: str = ""
    sent: list[Sent] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    down: bool = False
    """While true, every call gets 503."""
    _ids: int = 0

    def routes(self) -> dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]]:
        """The handlers, by method and path."""
        raise NotImplementedError

    def next_id(self, prefix: str, digits: int = 32) -> str:
        """A new id of a message."""
        self._ids += 1
        return f"{prefix}{self._ids:0{digits}x}"

    def count(self, attempt_id: str) -> int:
        """How many messages were taken for an attempt."""
        return sum(one.attempt_id == attempt_id for one in self.sent)

    def refuse(self, why: str) -> None:
        """Note a request that the provider's documents do not allow."""
        self.refused.append(why)

    async def lose(self, request: web.Request) -> web.StreamResponse:
        """Close the connection instead of answering."""
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def call_back(
        self, url: str, body: bytes | Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> tuple[int, str, str]:
        """POST to Spine. Returns the status, the content type and the body of the answer."""
        async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=headers) as answer:
            return answer.status, answer.content_type, await answer.text()

    @asynccontextmanager
    async def run(self) -> AsyncIterator["FakeService"]:
        """Serve on a free port of loopback until the block ends."""
        app = web.Application(middlewares=[self._outage])
        for route, handler in self.routes().items():
            method, path = route.split()
            app.router.add_route(method, path, handler)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            with contextlib.suppress(asyncio.TimeoutError):
                await runner.cleanup()

    @web.middleware
    async def _outage(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        return web.Response(status=503) if self.down else await handler(request)
