"""Figure 2: events accepted one by one and in batches of 100, against the no-op route of the same server process.

No worker runs meanwhile, so that only acceptance is measured. Every 201 is an fsynced commit.
"""

import itertools
import re
from collections.abc import Iterator

import orjson

from bench.costs import Meter
from bench.database import Workspace
from bench.environment import Environment
from bench.load import Calls, get, post
from bench.stats import Latency, Spread, ratios

BATCH = 100
DATA = {"order": "A-1", "total": 42, "fill": "x" * 300}
_ID = re.compile(rb'"id":"(evt_[0-9A-Z]{26})"')
_runs = itertools.count()


def singles(workspace: Workspace, type: str = "bench.accepted") -> Iterator[bytes]:
    """Yield POST /v1/events requests without end."""
    body, run = orjson.dumps({"type": type, "data": DATA}), next(_runs)
    for n in itertools.count():
        yield post("/v1/events", workspace.key, f"one-{run}-{n}", body)


def batches(workspace: Workspace, type: str = "bench.accepted") -> Iterator[bytes]:
    """Yield POST /v1/events/batch requests without end."""
    body, run = orjson.dumps({"events": [{"type": type, "data": DATA}] * BATCH}), next(_runs)
    for n in itertools.count():
        yield post("/v1/events/batch", workspace.key, f"many-{run}-{n}", body)


def accepted_ids(calls: Calls) -> list[str]:
    """Return the ids of the events in these responses."""
    return [id.decode() for _, body in calls.responses for id in _ID.findall(body)]


async def measure(environment: Environment) -> None:
    """Measure no-op, single events and batches in turn, over the same connections."""
    environment.worker.pause()
    workspace = await environment.database.create_workspace()
    noop, single, batch = [], [], []
    latency_s: list[float] = []
    for turn in range(environment.scale.rounds + 1):
        for_s = 0.4 if turn == 0 else environment.scale.accept_s
        async with environment.load() as load:
            empty = (await load.closed_loop(itertools.repeat(get("/livez")), for_s)).require(200)
            meter = Meter(environment.installation, environment.database)
            await meter.start()
            ones = (await load.closed_loop(singles(workspace), for_s)).require(201)
            ones_cost = await meter.stop(len(ones.responses))
            meter = Meter(environment.installation, environment.database)
            await meter.start()
            hundreds = (await load.closed_loop(batches(workspace), for_s)).require(201)
            hundreds_cost = await meter.stop(len(hundreds.responses) * BATCH)
        for calls in (ones, hundreds):
            workspace.accepted += accepted_ids(calls)
        if turn:
            noop.append(empty.rate)
            single.append(ones.rate)
            batch.append(hundreds.rate * BATCH)
            latency_s += ones.latency_s
            environment.results.costs["accepted one by one"] = ones_cost
            environment.results.costs["accepted in batches of 100"] = hundreds_cost
    await environment.reconcile("accept", workspace, fan_out=1)
    await environment.clear()
    environment.worker.resume()
    environment.results.promised["accept_ratio"] = ratios(single, noop)
    environment.results.promised["accept_batch_ratio"] = ratios(batch, noop)
    environment.results.latencies_ms["accept"] = {"one by one": [value * 1000 for value in latency_s]}
    environment.results.note(
        "accept",
        noop_per_s=Spread.of(noop).median,
        one_by_one_per_s=Spread.of(single).median,
        batched_events_per_s=Spread.of(batch).median,
        one_by_one_latency=Latency.of(latency_s),
    )
