"""The door of the benchmarks: `python -m bench [--quick] [--only name …]` runs, prints its table, writes its results."""

import argparse
import os
import platform
import sys
import time
from pathlib import Path

import orjson
import uvloop

from bench import pictures, shapes, table
from bench.figures import accept, backlog, delivered, first_byte, isolation, retry
from bench.installation import Installation
from bench.process import ROOT
from bench.results import Results
from bench.rig import FULL, QUICK, open_rig
from bench.usage import machine_busy_s

FIGURES = {
    "delivered": delivered.measure,
    "accept": accept.measure,
    "first-byte": first_byte.measure,
    "isolation": isolation.measure,
    "backlog": backlog.measure,
    "retry": retry.measure,
}
RESULTS = ROOT / "bench/results.json"
REPORT = ROOT / "bench/report"


def _machine() -> dict[str, object]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": os.cpu_count(),
        "memory_bytes": memory,
        "python": platform.python_version(),
        "system": platform.platform(),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "load_before": os.getloadavg()[0],
    }


def _write(results: Results, path: Path) -> None:
    path.write_bytes(orjson.dumps(results.as_json(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


async def _run(names: list[str], directory: Path, results: Results, path: Path) -> None:
    async with (
        Installation(directory) as installation,
        open_rig(installation, QUICK if results.quick else FULL, results) as rig,
    ):
        every = FIGURES | shapes.SHAPES
        for name in names or list(FIGURES if results.quick else every):
            start, busy_s, ours_s = time.monotonic(), machine_busy_s(), installation.cpu_s()
            await every[name](rig)
            seconds = time.monotonic() - start
            others = (machine_busy_s() - busy_s - installation.cpu_s() + ours_s) / seconds / (os.cpu_count() or 1)
            results.note("share of the machine that others took meanwhile", **{name: max(0.0, others)})
            print(f"{name}: {seconds:.1f} s", file=sys.stderr, flush=True)
            _write(results, path)  # after each: a long run that breaks off has not been for nothing


def main() -> None:
    """Measure, then tell."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the promised figures alone, with wider error bars")
    parser.add_argument("--only", action="append", default=[], choices=[*FIGURES, *shapes.SHAPES])
    parser.add_argument(
        "--directory", type=Path, default=ROOT / "build/bench", help="where the servers keep their data"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    results = Results(chosen.quick, _machine())
    uvloop.run(_run(chosen.only, chosen.directory, results, chosen.results))
    print(table.render(results))
    pictures.draw(results, REPORT)
    print(f"results: {chosen.results}   pictures: {REPORT}")


if __name__ == "__main__":
    main()
