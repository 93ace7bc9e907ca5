"""Figure 3: time from the acceptance of an event to the first byte at its receiver, in an open loop of 200 events/s."""

import asyncio
from collections.abc import Callable

import orjson

from bench.costs import Meter
from bench.database import Workspace
from bench.environment import Environment
from bench.figures.accept import DATA, accepted_ids
from bench.load import post
from bench.stats import Latency, Spread

RATE = 200
ENDPOINTS = 10


def round_robin(workspace: Workspace, run: str) -> Callable[[int], bytes]:
    """Return a function of n for POST /v1/events number n, with the endpoints of the workspace in turn."""
    bodies = [orjson.dumps({"type": f"bench.t{n}", "data": DATA}) for n in range(len(workspace.endpoints))]
    return lambda n: post("/v1/events", workspace.key, f"{run}-{n}", bodies[n % len(bodies)])


async def latencies_s(environment: Environment, workspace: Workspace) -> dict[str, list[float]]:
    """Return for each path the seconds from acceptance (database clock, before the commit) to the first byte."""
    accepted_at = await environment.database.accepted_at(workspace)
    times = await environment.receiver.times()
    return {
        path: [at - accepted_at[id] for id, at in came.items() if id in accepted_at] for path, came in times.items()
    }


async def measure(environment: Environment) -> None:
    """Measure one run in two halves, which give the spread."""
    workspace = await environment.database.create_workspace()
    await environment.database.create_endpoints(workspace, environment.receiver.urls("ok", ENDPOINTS))
    p50, p99 = [], []
    every: list[float] = []
    answered: list[float] = []
    for turn in range(3):
        for_s = 1.0 if turn == 0 else environment.scale.first_byte_s / 2
        meter = Meter(environment.installation, environment.database)
        await meter.start()
        async with environment.load() as load:
            calls = (await load.open_loop(RATE, for_s, round_robin(workspace, f"first-{turn}"))).require(201)
        workspace.accepted += accepted_ids(calls)
        await environment.wait_received(len(workspace.accepted))
        await environment.wait_drained()
        cost = await meter.stop(len(calls.responses))
        found = [wait for waits in (await latencies_s(environment, workspace)).values() for wait in waits]
        await environment.reconcile(f"first byte, {turn}", workspace)
        if turn:
            latency = Latency.of(found)
            p50.append(latency.p50_ms)
            p99.append(latency.p99_ms)
            every += found
            answered += calls.latency_s
            environment.results.costs["200 events/s through both hops"] = cost
        await environment.clear()
        workspace.accepted.clear()
        await asyncio.sleep(0.2)
    environment.results.promised["first_byte_p50_ms"] = Spread.of(p50)
    environment.results.promised["first_byte_p99_ms"] = Spread.of(p99)
    environment.results.latencies_ms["first byte"] = {
        "accepted to first byte": [value * 1000 for value in every],
        "POST to 201": [value * 1000 for value in answered],
    }
    environment.results.note("first byte", latency=Latency.of(every), answered=Latency.of(answered), events_per_s=RATE)
