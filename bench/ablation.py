"""A worker without one optimisation, to measure what it gains: `python -m arq bench.ablation.WorkerSettings`.

`BENCH_WITHOUT` names the optimisation. Only the benchmarks start this; every variant is as durable as the product.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import Any, Final

import aiohttp
import httpx
from aiohttp.base_protocol import BaseProtocol

from spine.kernel.http_client import HttpClient, HttpResponse
from workers.main import WorkerSettings
from workers.webhooks import record, relay, relay_plan, relay_turns, send
from workers.webhooks.endpoint_queues import EndpointQueues
from workers.webhooks.jobs import EndpointLimits, Placement

__all__ = ["CHOICES", "WorkerSettings"]


def _group_commit() -> None:
    os.environ["SPINE_COMMIT_GAP_S"] = "0"
    record._BATCH_MAX = 1  # type: ignore[misc]  # switched off on purpose


def _batched_relay() -> None:
    relay._EVENTS_MAX = relay_turns.EVENTS_MAX = 1  # type: ignore[misc]  # switched off on purpose


def _leased_on_write() -> None:
    def reserve_nothing(_: EndpointQueues, limits: EndpointLimits, now_s: float) -> Placement:
        del limits, now_s
        return Placement.DUE

    add: Callable[..., int] = relay_plan.Planner.add

    def add_unleased(self: relay_plan.Planner, *args: object) -> int:
        reserve, EndpointQueues.reserve = EndpointQueues.reserve, reserve_nothing  # type: ignore[assignment,method-assign]  # only while the relay plans
        try:
            return add(self, *args)
        finally:
            EndpointQueues.reserve = reserve  # type: ignore[method-assign]

    relay_plan.Planner.add = add_unleased  # type: ignore[assignment,method-assign]


def _bare_aiohttp() -> None:
    post = HttpClient.call
    clients: dict[int, httpx.AsyncClient] = {}

    async def over_httpx(
        self: HttpClient, url: str, headers: Mapping[str, str], body: bytes, **options: Any
    ) -> HttpResponse:
        # The checks and the response stay the same; only the call of the session goes through httpx.
        if id(self) not in clients:
            clients[id(self)] = self.client()
            self._session.post = _Session(clients[id(self)]).post  # type: ignore[assignment,method-assign]
        return await post(self, url, headers, body, **options)

    HttpClient.call = over_httpx  # type: ignore[method-assign]


class _Session:
    """aiohttp's `post` over httpx's transport, without the client layer of httpx."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._transport = client._transport

    async def post(self, url: object, *, data: bytes, headers: Mapping[str, str], **_: object) -> object:
        response = await self._transport.handle_async_request(
            httpx.Request("POST", str(url), headers=headers, content=data)
        )
        loop = asyncio.get_running_loop()
        content = aiohttp.StreamReader(BaseProtocol(loop), 1 << 16, loop=loop)
        content.feed_data(b"".join([chunk async for chunk in response.stream]))  # type: ignore[union-attr]
        content.feed_eof()
        return _Response(response.status_code, response.headers, content)


class _Response:
    def __init__(self, status: int, headers: Mapping[str, str], content: aiohttp.StreamReader) -> None:
        self.status, self.headers, self.content = status, headers, content

    def close(self) -> None:
        """Do nothing: the response holds no resources."""


def _commit_gap() -> None:
    os.environ["SPINE_COMMIT_GAP_S"] = "0"


def _short_turns() -> None:
    send.STARTS_PER_TURN = send.STARTS_PER_PRIORITY_TURN = 1_000_000  # type: ignore[misc]  # switched off on purpose


CHOICES: Final[dict[str, Callable[[], None]]] = {
    "group commit": _group_commit,
    "commit gap": _commit_gap,
    "batched relay": _batched_relay,
    "born leased": _leased_on_write,
    "aiohttp itself": _bare_aiohttp,
    "short turns": _short_turns,
}

if "BENCH_WITHOUT" in os.environ:
    CHOICES[os.environ["BENCH_WITHOUT"]]()
