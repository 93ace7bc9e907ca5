"""Figure 1: a prepared backlog is drained by one worker and by two, with the full ledger, against the bare client loop."""

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.costs import Meter
from bench.process import Process
from bench.rig import Rig
from bench.stats import Cost, Spread, per_second, ratios
from bench.tenant import BODY_BYTES, CAP, Database, Workspace
from workers.heartbeat import HEARTBEAT_S

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
    measured = Meter(rig.installation, database) if meter else None
    types = [f"bench.t{n}" for n in range(len(workspace.endpoints))]
    if measured:
        await measured.start()
    await database.events(workspace, events, types)
    start = time.perf_counter()
    database.wake("relay")
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


@dataclass(frozen=True, slots=True)
class _Side:
    """A set of workers with a database of their own; they stand still while others are measured."""

    name: str
    database: Database
    workers: Sequence[Process]
    workspace: Workspace


async def _side(name: str, database: Database, workers: Sequence[Process], urls: Sequence[str]) -> _Side:
    workspace = await database.workspace()
    await database.endpoints(workspace, urls)
    return _Side(name, database, workers, workspace)


async def _pair(rig: Rig, urls: Sequence[str]) -> _Side:
    database = await rig.installation.database("pair", 1)
    workers = await asyncio.gather(*(rig.installation.worker(database) for _ in range(2)))
    return await _side("two workers", database, workers, urls)


async def measure(rig: Rig) -> None:
    """Bare loop, one worker, two workers, in turn. Their first turn warms them up, and counts for nothing."""
    urls = rig.receiver.urls("ok", ENDPOINTS)

    async def bare(events: int) -> tuple[float, float]:
        found = await rig.bare.rate(urls, events * 2, AT_ONCE, BODY_BYTES)
        await rig.receiver.reset()
        return found

    async def drained(side: _Side, events: int, *, meter: bool = True) -> tuple[float, Cost | None]:
        return await drain(rig, side.database, side.workspace, side.workers, events, side.name, meter=meter)

    warm_up = rig.scale.drained // 4
    one = await _side("one worker", rig.database, [rig.worker], urls)
    two, _ = await asyncio.gather(_pair(rig, urls), drained(one, warm_up, meter=False))
    acquainted_s = time.monotonic() + HEARTBEAT_S + 0.2  # the two have seen each other by then
    await bare(warm_up)
    await drained(two, warm_up, meter=False)
    rates: dict[str, list[float]] = {"bare": [], one.name: [], two.name: []}
    bare_cpu: list[float] = []
    for _ in range(rig.scale.rounds):
        rate, cpu_us = await bare(rig.scale.drained)
        rates["bare"].append(rate)
        bare_cpu.append(cpu_us)
        for side in (one, two):
            if side is two:
                await asyncio.sleep(max(0.0, acquainted_s - time.monotonic()))
            rate, cost = await drained(side, rig.scale.drained)
            assert cost is not None
            rates[side.name].append(rate)
            rig.results.costs[f"delivered, {side.name}"] = cost
    for process in two.workers:
        rig.installation.dismiss(process)
    rig.worker.resume()
    rig.results.promised["delivered_ratio"] = ratios(rates[one.name], rates["bare"])
    rig.results.promised["two_workers_ratio"] = ratios(rates[two.name], rates[one.name])
    one_us = sum(rig.results.costs[f"delivered, {one.name}"].cpu_us.values())
    one_cores = one_us * Spread.of(rates[one.name]).median / 1e6
    rig.results.note(
        "delivered",
        one_worker_uses_cores=one_cores,
        two_workers_ratio_at_most=(os.cpu_count() or 1) / one_cores,
        bare_per_s=Spread.of(rates["bare"]).median,
        one_worker_per_s=Spread.of(rates[one.name]).median,
        two_workers_per_s=Spread.of(rates[two.name]).median,
        bare_cpu_us=Spread.of(bare_cpu).median,
        at_once=AT_ONCE,
        body_bytes=BODY_BYTES,
    )
