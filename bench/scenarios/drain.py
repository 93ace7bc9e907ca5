"""The basis of most scenarios: one worker drains a prepared backlog, and its cost is measured."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.costs import Meter
from bench.database import BODY_BYTES, MAX_IN_FLIGHT, Database
from bench.environment import Environment
from bench.receivers import Receiver
from bench.stats import Cost

WARM_UP = 500


@dataclass(frozen=True, slots=True)
class DrainResult:
    """Deliveries per second from the commit of the backlog to the commit of the last result, and their cost."""

    per_s: float
    cost: Cost


async def measure_drain(
    environment: Environment,
    name: str,
    urls: Sequence[str],
    events: int,
    *,
    to_all: bool = False,
    size: int = BODY_BYTES,
    max_in_flight: int = MAX_IN_FLIGHT,
    database: Database | None = None,
    receiver: Receiver | None = None,
    warm_up: int = WARM_UP,
) -> DrainResult:
    """Drain events to one endpoint each in turn, or `to_all`. Adds the cost to the results and empties the tables."""
    database, receiver = database or environment.database, receiver or environment.receiver
    workspace = await database.create_workspace()
    await database.create_endpoints(workspace, urls, type="bench.all" if to_all else None, max_in_flight=max_in_flight)
    types = ["bench.all"] if to_all else [f"bench.t{n}" for n in range(len(urls))]
    fan_out = len(urls) if to_all else 1
    if warm_up:
        await database.insert_events(workspace, -(-warm_up // fan_out), types, size)
        database.wake("relay")
        await environment.wait_received(len(workspace.accepted) * fan_out, receiver=receiver)
        await environment.wait_drained(database)
    meter = Meter(environment.installation, database)
    await meter.start()
    made = await database.insert_events(workspace, events, types, size)
    start = time.perf_counter()
    database.wake("relay")
    await environment.wait_received(len(workspace.accepted) * fan_out, receiver=receiver)
    await environment.wait_drained(database)
    seconds = time.perf_counter() - start
    deliveries = len(made) * fan_out
    found = DrainResult(deliveries / seconds, await meter.stop(deliveries))
    await environment.reconcile(name, workspace, fan_out=fan_out, database=database, receiver=receiver)
    environment.results.costs[name] = found.cost
    environment.results.note("shapes", **{f"{name}, per s": found.per_s})
    await database.clear()
    await receiver.reset()
    return found
