"""What most shapes are: a prepared backlog of some form, drained by one worker, with its cost."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.costs import Meter
from bench.receivers import Receiver
from bench.rig import Rig
from bench.stats import Cost
from bench.tenant import BODY_BYTES, CAP, Database

WARM_UP = 500


@dataclass(frozen=True, slots=True)
class Drained:
    """Deliveries per second from the commit of the backlog until the last result is committed, and the cost of each."""

    per_s: float
    cost: Cost


async def drained(
    rig: Rig,
    name: str,
    urls: Sequence[str],
    events: int,
    *,
    to_all: bool = False,
    size: int = BODY_BYTES,
    cap: int = CAP,
    database: Database | None = None,
    receiver: Receiver | None = None,
    warm_up: int = WARM_UP,
) -> Drained:
    """Each event goes to one endpoint in turn, or `to_all`. Leaves the tables empty and the cost in the results."""
    database, receiver = database or rig.database, receiver or rig.receiver
    workspace = await database.workspace()
    await database.endpoints(workspace, urls, type="bench.all" if to_all else None, cap=cap)
    types = ["bench.all"] if to_all else [f"bench.t{n}" for n in range(len(urls))]
    fan_out = len(urls) if to_all else 1
    if warm_up:
        await database.events(workspace, -(-warm_up // fan_out), types, size)
        database.wake("relay")
        await rig.received(len(workspace.accepted) * fan_out, receiver=receiver)
        await rig.drained(database)
    meter = Meter(rig.installation, database)
    await meter.start()
    made = await database.events(workspace, events, types, size)
    start = time.perf_counter()
    database.wake("relay")
    await rig.received(len(workspace.accepted) * fan_out, receiver=receiver)
    await rig.drained(database)
    seconds = time.perf_counter() - start
    deliveries = len(made) * fan_out
    found = Drained(deliveries / seconds, await meter.stop(deliveries))
    await rig.settle(name, workspace, fan_out=fan_out, database=database, receiver=receiver)
    rig.results.costs[name] = found.cost
    rig.results.note("shapes", **{f"{name}, per s": found.per_s})
    await database.clear()
    await receiver.reset()
    return found
