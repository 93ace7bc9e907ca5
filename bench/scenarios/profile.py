"""The CPU cost of a delivery by part: a worker drains a backlog under a sampling profiler, beside Postgres and receiver."""

import asyncio
from typing import Final

import orjson

from bench.environment import Environment
from bench.scenarios.drain import measure_drain

_MIN_SHARE: Final = 0.01
"""Parts below this share of the worker's CPU are shown together."""
_REST: Final = "the rest"


async def profile(environment: Environment) -> None:
    """Add the shares to the results, and a chart of µs per delivery by part."""
    profile_path = environment.installation.directory / "profile.json"
    database = await environment.installation.database("profiled", 2)
    worker = await environment.installation.worker(
        database, "bench.profiled.WorkerSettings", BENCH_PROFILE=str(profile_path)
    )
    environment.worker.pause()
    found = await measure_drain(
        environment,
        "under a profile",
        environment.receiver.urls("ok", 10),
        environment.scale.drain_events,
        database=database,
    )
    await asyncio.to_thread(environment.installation.stop_worker, worker)
    environment.worker.resume()
    samples: dict[str, int] = orjson.loads(profile_path.read_bytes())
    total = sum(samples.values())
    cpu_us = found.cost.cpu_us
    parts = {"Postgres": cpu_us["postgres"], "receiver": cpu_us["receiver"], _REST: 0.0}
    for name, count in samples.items():
        shown = f"worker: {name}" if count / total >= _MIN_SHARE else _REST
        parts[shown] = parts.get(shown, 0.0) + count / total * cpu_us["worker"]
    environment.results.cpu_us["profile"] = parts
    environment.results.note("profile, µs per delivery", **parts)
