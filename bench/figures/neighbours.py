"""What one workspace sees while another one hurts: events, retries, messages and reads, alone and beside it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import orjson

from bench.environment import Environment
from bench.figures.backlog import insert_due_deliveries
from bench.figures.first_byte import latencies_s, round_robin
from bench.figures.retry import lateness_s
from bench.load import Load, get, post
from bench.messages import TEMPLATE, prepare, sent_after_s
from bench.results import Neighbour
from bench.stats import Latency, Spread

RATE = 50
_ENDPOINTS = 5
_MESSAGES_PER_S = 20
_MESSAGE = {"to": {"phone": "+910000000000"}, "channels": ["sms"], "template": TEMPLATE}

Measure = Callable[[Environment, str], Awaitable[list[float]]]
Hurter = Callable[[Environment], AbstractAsyncContextManager[None]]


async def events(environment: Environment, run: str) -> list[float]:
    """Seconds from acceptance to the first byte of 50 events/s of the quiet workspace."""
    workspace = await environment.database.create_workspace()
    await environment.database.create_endpoints(workspace, environment.receiver.urls(f"ok/quiet-{run}", _ENDPOINTS))
    seconds = environment.scale.isolation_s * 2
    async with environment.load(8) as load:
        (await load.open_loop(RATE, seconds, round_robin(workspace, f"quiet-{run}"))).require(201)
    await _arrived(environment, run, int(RATE * seconds))
    waits = await latencies_s(environment, workspace)
    return [wait for path, found in waits.items() if f"quiet-{run}" in path for wait in found]


async def retries(environment: Environment, run: str) -> list[float]:
    """Seconds that 200 retries per second of the quiet workspace are late."""
    workspace = await environment.database.create_workspace()
    urls = environment.receiver.urls(f"ok/quiet-{run}", _ENDPOINTS)
    await environment.database.create_endpoints(workspace, urls, type="bench.other")
    count = int(200 * environment.scale.isolation_s * 2)
    return await lateness_s(environment, workspace, count, 200, lambda: _arrived(environment, run, count))


async def _arrived(environment: Environment, run: str, count: int) -> None:
    arrived, until = 0, asyncio.get_running_loop().time() + 120
    while arrived < count:
        if asyncio.get_running_loop().time() > until:
            raise TimeoutError(f"{arrived} of {count} deliveries of the quiet workspace arrived")
        await asyncio.sleep(0.2)
        times = await environment.receiver.times(f"/ok/quiet-{run}")
        arrived = sum(len(found) for found in times.values())


async def sends(environment: Environment, run: str) -> list[float]:
    """Seconds from the acceptance of a message of the quiet workspace to its handover to the provider."""
    workspace = await prepare(environment.database)
    count = int(_MESSAGES_PER_S * environment.scale.isolation_s * 2)
    body = orjson.dumps(_MESSAGE)
    async with environment.load(8) as load:
        calls = await load.open_loop(
            _MESSAGES_PER_S,
            count / _MESSAGES_PER_S,
            lambda n: post("/notifications/v1/messages", workspace.key, f"quiet-{run}-{n}", body),
        )
    calls.require(201)
    return await sent_after_s(environment.database, workspace, count)


async def reads(environment: Environment, _: str) -> list[float]:
    """Seconds that reads of the quiet workspace take."""
    workspace = await environment.database.create_workspace()
    async with environment.load(4) as load:
        request = get("/v1/events?limit=10", workspace.key)
        calls = await load.open_loop(RATE, environment.scale.isolation_s * 2, lambda _: request)
    return calls.require(200).latency_s


@asynccontextmanager
async def burst(environment: Environment) -> AsyncIterator[None]:
    """12,000 events per second for five seconds, inserted at once, for ten endpoints."""
    workspace = await environment.database.create_workspace()
    await environment.database.create_endpoints(workspace, environment.receiver.urls("ok/hurter", 10))
    types = [f"bench.t{n}" for n in range(10)]
    await environment.database.insert_events(workspace, environment.scale.hurting_rows, types)
    environment.database.wake("relay")
    yield


def due_rows(endpoints: int) -> Hurter:
    """Due deliveries for so many endpoints, whose receivers take 100 ms."""

    @asynccontextmanager
    async def hurt(environment: Environment) -> AsyncIterator[None]:
        workspace = await environment.database.create_workspace()
        await environment.database.create_endpoints(workspace, environment.receiver.urls("wait/100", endpoints))
        await insert_due_deliveries(environment.database, workspace, environment.scale.hurting_rows)
        environment.database.wake("deliver")
        await asyncio.sleep(0.5)
        yield

    return hurt


@asynccontextmanager
async def hanging(environment: Environment) -> AsyncIterator[None]:
    """200 endpoints whose receivers hang, with 20 events each."""
    workspace = await environment.database.create_workspace()
    await environment.database.create_endpoints(workspace, environment.receiver.urls("hang", 200))
    await environment.database.insert_events(workspace, 4_000, [f"bench.t{n}" for n in range(200)])
    environment.database.wake("relay")
    await asyncio.sleep(0.5)
    try:
        yield
    finally:
        await environment.receiver.cut()


def many_sends(count: int, slow_ms: int) -> Hurter:
    """So many messages at once, whose provider takes so long for each."""

    @asynccontextmanager
    async def hurt(environment: Environment) -> AsyncIterator[None]:
        workspace = await prepare(environment.database, slow_ms=slow_ms)
        body = orjson.dumps({"messages": [_MESSAGE] * 500})
        async with environment.load(2) as load:
            keys = (f"many-{n}" for n in range(count // 500))
            requests = (post("/notifications/v1/messages/batch", workspace.key, key, body) for key in keys)
            (await load.closed_loop(requests, 60)).require(201)
        await asyncio.sleep(0.5)
        yield

    return hurt


@asynccontextmanager
async def endless_reads(environment: Environment) -> AsyncIterator[None]:
    """60 callers that read pages of a type that never occurs, over many events."""
    workspace = await environment.database.create_workspace()
    await environment.database.insert_events(workspace, environment.scale.hurting_rows, ["bench.t0"], relayed=True)
    request = get("/v1/events?type=never.seen", workspace.key)

    async def read_on(load: Load) -> None:
        while True:
            await load.closed_loop((request for _ in range(600)), 60)

    async with environment.load(60) as load:
        reading = asyncio.create_task(read_on(load))
        await asyncio.sleep(0.3)
        try:
            yield
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class _Pair:
    hurter: str
    hurt: Hurter
    sees: str
    measure: Measure


PAIRS = (
    _Pair("a burst of events", burst, "first byte", events),
    _Pair("due rows of one endpoint", due_rows(1), "first byte", events),
    _Pair("due rows of one endpoint", due_rows(1), "retry lateness", retries),
    _Pair("due rows of 500 endpoints", due_rows(500), "first byte", events),
    _Pair("due rows of 500 endpoints", due_rows(500), "retry lateness", retries),
    _Pair("200 hanging endpoints", hanging, "first byte", events),
    _Pair("3,000 slow sends", many_sends(3_000, 2_000), "time to send", sends),
    _Pair("12,000 quick sends", many_sends(12_000, 0), "time to send", sends),
    _Pair("60 endless readers", endless_reads, "read", reads),
)


async def measure(environment: Environment) -> None:
    """Measure each pair: the quiet workspace alone, and then beside the other one."""
    for warm_up in {pair.measure: None for pair in PAIRS}:
        await warm_up(environment, "warm-up")
        await environment.abandon()
    ratios: dict[str, list[float]] = {}
    for number, pair in enumerate(PAIRS):
        alone = Latency.of(await pair.measure(environment, f"alone-{number}"))
        await environment.abandon()
        async with pair.hurt(environment):
            beside = Latency.of(await pair.measure(environment, f"beside-{number}"))
        await environment.abandon()
        environment.results.neighbours.append(Neighbour(pair.hurter, pair.sees, alone, beside))
        ratios.setdefault(pair.sees, []).append(beside.p99_ms / alone.p99_ms)
    late = [one.beside.p99_ms for one in environment.results.neighbours if one.sees == "retry lateness"]
    environment.results.promised["neighbour_first_byte_ratio"] = Spread.of(ratios["first byte"])
    environment.results.promised["neighbour_send_ratio"] = Spread.of(ratios["time to send"])
    environment.results.promised["neighbour_retry_late_p99_ms"] = Spread.of(late)
