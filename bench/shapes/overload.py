"""More than is delivered: the API says 429 before anything falls over, and goes on when there is room again."""

import asyncio

from bench.figures.accept import accepted_ids, batches, singles
from bench.load import Load
from bench.rig import CONNECTIONS, Rig
from bench.stats import Latency
from bench.usage import memory_bytes

_MAX_OUTBOX = 20_000
_FLOOD_S = 10.0
_AFTER_S = 2.0


async def overload(rig: Rig) -> None:
    """A flood of batches while no worker runs: 201 or 429 and nothing else; whatever got a 201 is delivered in the end."""
    port = await rig.installation.api(rig.database, SPINE_MAX_OUTBOX=str(_MAX_OUTBOX))
    api = rig.installation.roles["api"][-1]
    workspace = await rig.database.workspace()
    await rig.database.endpoints(workspace, rig.receiver.urls("ok", 10))
    rig.worker.pause()
    memory = [memory_bytes(api.pid)]
    async with Load("127.0.0.1", port, CONNECTIONS) as load:
        flood = await load.as_fast_as_answered(batches(workspace, "bench.t0"), _FLOOD_S)
        memory.append(memory_bytes(api.pid))
    took = flood.of(201)
    refused = flood.of(429)
    if len(took.answers) + len(refused.answers) != len(flood.answers):
        raise RuntimeError("under overload something other than 201 and 429 was answered")
    if not refused.answers:
        raise RuntimeError("the flood was never refused")
    workspace.accepted += accepted_ids(took)
    rig.worker.resume()
    await rig.received(len(workspace.accepted))
    await rig.drained()
    await asyncio.sleep(_AFTER_S)
    async with Load("127.0.0.1", port, CONNECTIONS) as load:
        after = (await load.as_fast_as_answered(singles(workspace, "bench.t0"), _AFTER_S)).require(201)
    workspace.accepted += accepted_ids(after)
    await rig.received(len(workspace.accepted))
    await rig.drained()
    await rig.settle("overload", workspace)
    await rig.sweep_out()
    rig.results.note(
        "overload",
        outbox_limit=_MAX_OUTBOX,
        accepted=len(accepted_ids(took)),
        requests_refused=len(refused.answers),
        accepted_latency=Latency.of(took.latency_s),
        refused_latency=Latency.of(refused.latency_s),
        api_bytes=memory,
    )
