"""Figure 2: events accepted one by one and in batches of 100, against the no-op route of the same server process.

No worker runs meanwhile: what is measured is the way in. Every 201 is an fsynced commit.
"""

import itertools
import re
from collections.abc import Iterator

import orjson

from bench.costs import Meter
from bench.load import Calls, get, post
from bench.rig import Rig
from bench.stats import Latency, Spread, ratios
from bench.tenant import Workspace

BATCH = 100
DATA = {"order": "A-1", "total": 42, "fill": "x" * 300}
_ID = re.compile(rb'"id":"(evt_[0-9A-Z]{26})"')
_runs = itertools.count()


def singles(workspace: Workspace, type: str = "bench.accepted") -> Iterator[bytes]:
    """POST /v1/events for ever."""
    body, run = orjson.dumps({"type": type, "data": DATA}), next(_runs)
    for n in itertools.count():
        yield post("/v1/events", workspace.key, f"one-{run}-{n}", body)


def batches(workspace: Workspace, type: str = "bench.accepted") -> Iterator[bytes]:
    """POST /v1/events/batch for ever."""
    body, run = orjson.dumps({"events": [{"type": type, "data": DATA}] * BATCH}), next(_runs)
    for n in itertools.count():
        yield post("/v1/events/batch", workspace.key, f"many-{run}-{n}", body)


def accepted_ids(calls: Calls) -> list[str]:
    """The ids of the events that these answers tell of."""
    return [id.decode() for _, body in calls.answers for id in _ID.findall(body)]


async def measure(rig: Rig) -> None:
    """No-op, one by one, in batches, in turn, over the same connections."""
    rig.worker.pause()
    workspace = await rig.database.workspace()
    noop, single, batch = [], [], []
    latency_s: list[float] = []
    for turn in range(rig.scale.rounds + 1):
        for_s = 0.4 if turn == 0 else rig.scale.accept_s
        async with rig.load() as load:
            empty = (await load.as_fast_as_answered(itertools.repeat(get("/livez")), for_s)).require(200)
            meter = Meter(rig.installation, rig.database)
            await meter.start()
            ones = (await load.as_fast_as_answered(singles(workspace), for_s)).require(201)
            ones_cost = await meter.stop(len(ones.answers))
            meter = Meter(rig.installation, rig.database)
            await meter.start()
            hundreds = (await load.as_fast_as_answered(batches(workspace), for_s)).require(201)
            hundreds_cost = await meter.stop(len(hundreds.answers) * BATCH)
        for calls in (ones, hundreds):
            workspace.accepted += accepted_ids(calls)
        if turn:
            noop.append(empty.rate)
            single.append(ones.rate)
            batch.append(hundreds.rate * BATCH)
            latency_s += ones.latency_s
            rig.results.costs["accepted one by one"] = ones_cost
            rig.results.costs["accepted in batches of 100"] = hundreds_cost
    await rig.settle("accept", workspace, fan_out=1)
    await rig.sweep_out()
    rig.worker.resume()
    rig.results.promised["accept_ratio"] = ratios(single, noop)
    rig.results.promised["accept_batch_ratio"] = ratios(batch, noop)
    rig.results.latencies_ms["accept"] = {"one by one": [value * 1000 for value in latency_s]}
    rig.results.note(
        "accept",
        noop_per_s=Spread.of(noop).median,
        one_by_one_per_s=Spread.of(single).median,
        batched_events_per_s=Spread.of(batch).median,
        one_by_one_latency=Latency.of(latency_s),
    )
