"""What each choice of the engine buys: the same backlog with the choice and without it, in turn."""

from bench.process import Process
from bench.rig import Rig
from bench.shapes.drained import drained
from bench.stats import ratios
from bench.tenant import Database

NAMES = ("group commit", "commit gap", "batched relay", "born leased", "aiohttp itself", "short turns")
_ROUNDS = 4


async def measure(rig: Rig) -> None:
    """Two workers, each with a new database, in turn: one stands still while the other, without the choice, is measured."""
    urls = rig.receiver.urls("ok", 10)
    events = rig.scale.drained // 3
    rig.worker.pause()
    for number, name in enumerate(NAMES, 1):
        sides: list[tuple[str, Database, Process]] = []
        for place, side in enumerate(("with", "without")):
            database = await rig.installation.database(f"{side}{number}", 2 * number + place)
            without = {"BENCH_WITHOUT": name} if side == "without" else {}
            sides.append(
                (side, database, await rig.installation.worker(database, "bench.without.WorkerSettings", **without))
            )
        rates: dict[str, list[float]] = {"with": [], "without": []}
        for turn in range(_ROUNDS):
            for side, base, process in sides if turn % 2 else reversed(sides):
                for _, _, other in sides:
                    other.pause()
                process.resume()
                found = await drained(rig, f"{side} {name}", urls, events, database=base)
                rates[side].append(found.per_s)
        rig.results.note("choices", **{f"{name}, times faster": ratios(rates["with"], rates["without"])})
        for _, _, process in sides:
            rig.installation.dismiss(process)
    rig.worker.resume()
