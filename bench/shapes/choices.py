"""What each choice of the engine buys: the same backlog with the choice and without it, in turn."""

from bench.process import Process
from bench.rig import Rig
from bench.shapes.drained import drained
from bench.stats import ratios
from bench.tenant import Database

NAMES = ("group commit", "commit gap", "batched relay", "born leased", "aiohttp itself", "short turns")
_ROUNDS = 3


async def measure(rig: Rig) -> None:
    """The product's worker stands still while the one without the choice is measured, and the other way round."""
    urls = rig.receiver.urls("ok", 10)
    events = rig.scale.drained // 3
    for number, name in enumerate(NAMES, 3):
        database = await rig.house.database(f"without{number}", number)
        worker = await rig.house.worker(database, "bench.without.WorkerSettings", BENCH_WITHOUT=name)
        sides: list[tuple[str, Database, Process]] = [("with", rig.database, rig.worker), ("without", database, worker)]
        rates: dict[str, list[float]] = {"with": [], "without": []}
        for _ in range(_ROUNDS):
            for side, base, process in sides:
                for _, _, other in sides:
                    other.pause()
                process.resume()
                found = await drained(rig, f"{side} {name}", urls, events, database=base)
                rates[side].append(found.per_s)
        rig.results.note("choices", **{f"{name}, times faster": ratios(rates["with"], rates["without"])})
        rig.house.dismiss(worker)
        rig.worker.resume()
