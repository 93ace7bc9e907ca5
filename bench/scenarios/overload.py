"""Overload: the API responds with 429 when the outbox is full, and accepts events again when it has capacity."""

import asyncio

from bench.environment import CONNECTIONS, Environment
from bench.figures.accept import accepted_ids, batches, singles
from bench.load import Load
from bench.stats import Latency
from bench.usage import memory_bytes

_MAX_OUTBOX = 20_000
_FLOOD_S = 10.0
_AFTER_S = 2.0


async def overload(environment: Environment) -> None:
    """Send batches while no worker runs. The status is 201 or 429 only; every event with a 201 is delivered in the end."""
    port = await environment.installation.api(environment.database, SPINE_MAX_OUTBOX=str(_MAX_OUTBOX))
    api = environment.installation.roles["api"][-1]
    workspace = await environment.database.create_workspace()
    await environment.database.create_endpoints(workspace, environment.receiver.urls("ok", 10))
    environment.worker.pause()
    memory = [memory_bytes(api.pid)]
    async with Load("127.0.0.1", port, CONNECTIONS) as load:
        flood = await load.closed_loop(batches(workspace, "bench.t0"), _FLOOD_S)
        memory.append(memory_bytes(api.pid))
    accepted = flood.of(201)
    rejected = flood.of(429)
    if len(accepted.responses) + len(rejected.responses) != len(flood.responses):
        raise RuntimeError("under overload something other than 201 and 429 was answered")
    if not rejected.responses:
        raise RuntimeError("the flood was never refused")
    workspace.accepted += accepted_ids(accepted)
    environment.worker.resume()
    await environment.wait_received(len(workspace.accepted))
    await environment.wait_drained()
    await asyncio.sleep(_AFTER_S)
    async with Load("127.0.0.1", port, CONNECTIONS) as load:
        after = (await load.closed_loop(singles(workspace, "bench.t0"), _AFTER_S)).require(201)
    workspace.accepted += accepted_ids(after)
    await environment.wait_received(len(workspace.accepted))
    await environment.wait_drained()
    await environment.reconcile("overload", workspace)
    await environment.clear()
    environment.results.note(
        "overload",
        outbox_limit=_MAX_OUTBOX,
        accepted=len(accepted_ids(accepted)),
        requests_refused=len(rejected.responses),
        accepted_latency=Latency.of(accepted.latency_s),
        refused_latency=Latency.of(rejected.latency_s),
        api_bytes=memory,
    )
