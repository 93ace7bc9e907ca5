"""Measure the gain of each optimisation: the same backlog with and without it, in turn."""

from bench.database import Database
from bench.environment import Environment
from bench.process import Process
from bench.scenarios.drain import measure_drain
from bench.stats import ratios

NAMES = ("group commit", "commit gap", "batched relay", "born leased", "aiohttp itself", "short turns")
_ROUNDS = 4


async def measure(environment: Environment) -> None:
    """Measure two workers in turn, each with a new database: one with the optimisation, one without. The other is suspended."""
    urls = environment.receiver.urls("ok", 10)
    events = environment.scale.drain_events // 3
    environment.worker.pause()
    for number, name in enumerate(NAMES, 1):
        sides: list[tuple[str, Database, Process]] = []
        for index, side in enumerate(("with", "without")):
            database = await environment.installation.database(f"{side}{number}", 2 * number + index)
            without = {"BENCH_WITHOUT": name} if side == "without" else {}
            sides.append(
                (
                    side,
                    database,
                    await environment.installation.worker(database, "bench.ablation.WorkerSettings", **without),
                )
            )
        rates: dict[str, list[float]] = {"with": [], "without": []}
        for turn in range(_ROUNDS):
            for side, base, process in sides if turn % 2 else reversed(sides):
                for _, _, other in sides:
                    other.pause()
                process.resume()
                found = await measure_drain(environment, f"{side} {name}", urls, events, database=base)
                rates[side].append(found.per_s)
        environment.results.note("choices", **{f"{name}, times faster": ratios(rates["with"], rates["without"])})
        for _, _, process in sides:
            environment.installation.stop_worker(process)
    environment.worker.resume()
