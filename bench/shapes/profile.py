"""Where the CPU of a delivery goes: a worker that drains a backlog under a sampling profile, Postgres and receiver beside it."""

import asyncio
from typing import Final

import orjson

from bench.rig import Rig
from bench.shapes.drained import drained

_LEAST_SHARE: Final = 0.01
"""Parts below this share of the worker are shown together."""
_REST: Final = "the rest"


async def profile(rig: Rig) -> None:
    """Notes the shares, and draws µs per delivery by part."""
    kept = rig.installation.directory / "profile.json"
    database = await rig.installation.database("profiled", 2)
    worker = await rig.installation.worker(database, "bench.profiled.WorkerSettings", BENCH_PROFILE=str(kept))
    rig.worker.pause()
    found = await drained(rig, "under a profile", rig.receiver.urls("ok", 10), rig.scale.drained, database=database)
    await asyncio.to_thread(rig.installation.dismiss, worker)
    rig.worker.resume()
    samples: dict[str, int] = orjson.loads(kept.read_bytes())
    total = sum(samples.values())
    cpu_us = found.cost.cpu_us
    parts = {"Postgres": cpu_us["postgres"], "receiver": cpu_us["receiver"], _REST: 0.0}
    for name, count in samples.items():
        shown = f"worker: {name}" if count / total >= _LEAST_SHARE else _REST
        parts[shown] = parts.get(shown, 0.0) + count / total * cpu_us["worker"]
    rig.results.cpu_us["profile"] = parts
    rig.results.note("profile, µs per delivery", **parts)
