"""Figure 1: a prepared backlog is drained by one worker and by two, with the full ledger, against the bare client loop."""

import asyncio
import os
import time
from collections.abc import Sequence

from bench.costs import Meter
from bench.process import Process
from bench.rig import Rig
from bench.stats import Cost, Spread, per_second, ratios
from bench.tenant import BODY_BYTES, CAP, Database, Workspace

ENDPOINTS = 10
AT_ONCE = ENDPOINTS * CAP


async def drain(
    rig: Rig,
    database: Database,
    workspace: Workspace,
    workers: Sequence[Process],
    events: int,
    name: str,
    *,
    meter: bool = False,
) -> tuple[float, Cost | None]:
    """Deliveries per second from the commit of the backlog until the last result is committed, and what they cost."""
    for process in workers:
        process.resume()
    measured = Meter(rig.house, database) if meter else None
    types = [f"bench.t{n}" for n in range(len(workspace.endpoints))]
    if measured:
        await measured.start()
    await database.events(workspace, events, types)
    start = time.perf_counter()
    database.ring("relay")
    await rig.received(events)
    await rig.drained(database)
    seconds = time.perf_counter() - start
    cost = await measured.stop(events) if measured else None
    times = await rig.receiver.times()
    came = [at for path in times.values() for at in path.values()]
    rig.results.over_time.setdefault("throughput", {})[name] = per_second(came, 0.25)
    await rig.settle(name, workspace, database=database)
    await rig.sweep_out(database)
    workspace.accepted.clear()
    for process in workers:
        process.pause()
    return events / seconds, cost


async def measure(rig: Rig) -> None:
    """Bare loop, one worker, two workers, in turn; each set of processes stands still while another is measured."""
    urls = rig.receiver.urls("ok", ENDPOINTS)
    pair_database = await rig.house.database("pair", 1)
    pair = [await rig.house.worker(pair_database) for _ in range(2)]
    sides = [(rig.database, [rig.worker], "one worker"), (pair_database, pair, "two workers")]
    spaces: list[Workspace] = []
    for database, _, _ in sides:
        workspace = await database.workspace()
        await database.endpoints(workspace, urls)
        spaces.append(workspace)
    acquainted_s = time.monotonic() + 5.2  # the two see each other at their next heartbeat
    rates: dict[str, list[float]] = {"bare": [], "one worker": [], "two workers": []}
    bare_cpu: list[float] = []
    for turn in range(rig.scale.rounds + 1):
        warm_up = turn == 0
        events = rig.scale.drained // 4 if warm_up else rig.scale.drained
        rate, cpu_us = await rig.bare.rate(urls, events * 2, AT_ONCE, BODY_BYTES)
        await rig.receiver.reset()
        if not warm_up:
            rates["bare"].append(rate)
            bare_cpu.append(cpu_us)
        for (database, workers, name), workspace in zip(sides, spaces, strict=True):
            await asyncio.sleep(0.0 if workers is not pair else max(0.0, acquainted_s - time.monotonic()))
            rate, cost = await drain(rig, database, workspace, workers, events, name, meter=not warm_up)
            if not warm_up:
                rates[name].append(rate)
                assert cost is not None
                rig.results.costs[f"delivered, {name}"] = cost
    for process in pair:
        rig.house.dismiss(process)
    rig.worker.resume()
    rig.results.promised["delivered_ratio"] = ratios(rates["one worker"], rates["bare"])
    rig.results.promised["two_workers_ratio"] = ratios(rates["two workers"], rates["one worker"])
    one_us = sum(rig.results.costs["delivered, one worker"].cpu_us.values())
    one_cores = one_us * Spread.of(rates["one worker"]).median / 1e6
    rig.results.note(
        "delivered",
        one_worker_uses_cores=one_cores,
        two_workers_ratio_at_most=(os.cpu_count() or 1) / one_cores,
        bare_per_s=Spread.of(rates["bare"]).median,
        one_worker_per_s=Spread.of(rates["one worker"]).median,
        two_workers_per_s=Spread.of(rates["two workers"]).median,
        bare_cpu_us=Spread.of(bare_cpu).median,
        at_once=AT_ONCE,
        body_bytes=BODY_BYTES,
    )
