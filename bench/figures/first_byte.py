"""Figure 3: from an event's acceptance to the first byte at its receiver, in an open loop of 200 events a second."""

import asyncio
from collections.abc import Callable

import orjson

from bench.costs import Meter
from bench.figures.accept import DATA, accepted_ids
from bench.load import post
from bench.rig import Rig
from bench.stats import Latency, Spread
from bench.tenant import Workspace

RATE = 200
ENDPOINTS = 10


def in_turn(workspace: Workspace, run: str) -> Callable[[int], bytes]:
    """POST /v1/events number n, for the endpoints of the workspace in turn."""
    bodies = [orjson.dumps({"type": f"bench.t{n}", "data": DATA}) for n in range(len(workspace.endpoints))]
    return lambda n: post("/v1/events", workspace.key, f"{run}-{n}", bodies[n % len(bodies)])


async def waits_s(rig: Rig, workspace: Workspace) -> dict[str, list[float]]:
    """Path → seconds from acceptance (the database's clock, before the commit) to the first byte of each of its events."""
    accepted_at = await rig.database.accepted_at(workspace)
    times = await rig.receiver.times()
    return {
        path: [at - accepted_at[id] for id, at in came.items() if id in accepted_at] for path, came in times.items()
    }


async def measure(rig: Rig) -> None:
    """One run; its halves tell how far two runs lie apart."""
    workspace = await rig.database.workspace()
    await rig.database.endpoints(workspace, rig.receiver.urls("ok", ENDPOINTS))
    p50, p99 = [], []
    every: list[float] = []
    answered: list[float] = []
    for turn in range(3):
        for_s = 1.0 if turn == 0 else rig.scale.first_byte_s / 2
        meter = Meter(rig.installation, rig.database)
        await meter.start()
        async with rig.load() as load:
            calls = (await load.at_rate(RATE, for_s, in_turn(workspace, f"first-{turn}"))).require(201)
        workspace.accepted += accepted_ids(calls)
        await rig.received(len(workspace.accepted))
        await rig.drained()
        cost = await meter.stop(len(calls.answers))
        found = [wait for waits in (await waits_s(rig, workspace)).values() for wait in waits]
        await rig.settle(f"first byte, {turn}", workspace)
        if turn:
            latency = Latency.of(found)
            p50.append(latency.p50_ms)
            p99.append(latency.p99_ms)
            every += found
            answered += calls.latency_s
            rig.results.costs["200 events/s through both hops"] = cost
        await rig.sweep_out()
        workspace.accepted.clear()
        await asyncio.sleep(0.2)
    rig.results.promised["first_byte_p50_ms"] = Spread.of(p50)
    rig.results.promised["first_byte_p99_ms"] = Spread.of(p99)
    rig.results.latencies_ms["first byte"] = {
        "accepted to first byte": [value * 1000 for value in every],
        "POST to 201": [value * 1000 for value in answered],
    }
    rig.results.note("first byte", latency=Latency.of(every), answered=Latency.of(answered), events_per_s=RATE)
