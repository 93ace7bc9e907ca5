"""Figure 1: one worker and two workers drain a prepared backlog and record all results; compared with the bare client loop."""

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.costs import Meter
from bench.database import BODY_BYTES, MAX_IN_FLIGHT, Database, Workspace
from bench.environment import Environment
from bench.process import Process
from bench.stats import Cost, Spread, per_second, ratios
from workers.heartbeat import HEARTBEAT_S

ENDPOINTS = 10
AT_ONCE = ENDPOINTS * MAX_IN_FLIGHT


async def drain(
    environment: Environment,
    database: Database,
    workspace: Workspace,
    workers: Sequence[Process],
    events: int,
    name: str,
    *,
    meter: bool = False,
) -> tuple[float, Cost | None]:
    """Return the deliveries per second from the commit of the backlog to the commit of the last result, and their cost."""
    for process in workers:
        process.resume()
    measured = Meter(environment.installation, database) if meter else None
    types = [f"bench.t{n}" for n in range(len(workspace.endpoints))]
    if measured:
        await measured.start()
    await database.insert_events(workspace, events, types)
    start = time.perf_counter()
    database.wake("relay")
    await environment.wait_received(events)
    await environment.wait_drained(database)
    seconds = time.perf_counter() - start
    cost = await measured.stop(events) if measured else None
    times = await environment.receiver.times()
    came = [at for path in times.values() for at in path.values()]
    environment.results.over_time.setdefault("throughput", {})[name] = per_second(came, 0.25)
    await environment.reconcile(name, workspace, database=database)
    await environment.clear(database)
    workspace.accepted.clear()
    for process in workers:
        process.pause()
    return events / seconds, cost


@dataclass(frozen=True, slots=True)
class _Side:
    """A set of workers with their own database. They are suspended while others are measured."""

    name: str
    database: Database
    workers: Sequence[Process]
    workspace: Workspace


async def _side(name: str, database: Database, workers: Sequence[Process], urls: Sequence[str]) -> _Side:
    workspace = await database.create_workspace()
    await database.create_endpoints(workspace, urls)
    return _Side(name, database, workers, workspace)


async def _pair(environment: Environment, urls: Sequence[str]) -> _Side:
    database = await environment.installation.database("pair", 1)
    workers = await asyncio.gather(*(environment.installation.worker(database) for _ in range(2)))
    return await _side("two workers", database, workers, urls)


async def measure(environment: Environment) -> None:
    """Measure the bare loop, one worker and two workers in turn. The first turn is a warm-up and does not count."""
    urls = environment.receiver.urls("ok", ENDPOINTS)

    async def bare(events: int) -> tuple[float, float]:
        found = await environment.bare_client.rate(urls, events * 2, AT_ONCE, BODY_BYTES)
        await environment.receiver.reset()
        return found

    async def drained(side: _Side, events: int, *, meter: bool = True) -> tuple[float, Cost | None]:
        return await drain(environment, side.database, side.workspace, side.workers, events, side.name, meter=meter)

    warm_up = environment.scale.drain_events // 4
    one = await _side("one worker", environment.database, [environment.worker], urls)
    two, _ = await asyncio.gather(_pair(environment, urls), drained(one, warm_up, meter=False))
    balanced_s = time.monotonic() + HEARTBEAT_S + 0.2  # by then each worker has read the other's heartbeat
    await bare(warm_up)
    await drained(two, warm_up, meter=False)
    rates: dict[str, list[float]] = {"bare": [], one.name: [], two.name: []}
    bare_cpu: list[float] = []
    for _ in range(environment.scale.rounds):
        rate, cpu_us = await bare(environment.scale.drain_events)
        rates["bare"].append(rate)
        bare_cpu.append(cpu_us)
        for side in (one, two):
            if side is two:
                await asyncio.sleep(max(0.0, balanced_s - time.monotonic()))
            rate, cost = await drained(side, environment.scale.drain_events)
            assert cost is not None
            rates[side.name].append(rate)
            environment.results.costs[f"delivered, {side.name}"] = cost
    for process in two.workers:
        environment.installation.stop_worker(process)
    environment.worker.resume()
    environment.results.promised["delivered_ratio"] = ratios(rates[one.name], rates["bare"])
    environment.results.promised["two_workers_ratio"] = ratios(rates[two.name], rates[one.name])
    one_us = sum(environment.results.costs[f"delivered, {one.name}"].cpu_us.values())
    one_cores = one_us * Spread.of(rates[one.name]).median / 1e6
    environment.results.note(
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
