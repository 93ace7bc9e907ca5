"""Entry point of the benchmarks: `python -m bench [--quick] [--only name …]` runs them, prints a table, writes results."""

import argparse
import os
import platform
import sys
import time
from pathlib import Path

import orjson
import uvloop

from bench import charts, scenarios, table
from bench.environment import FULL, QUICK, open_environment
from bench.figures import accept, backlog, delivered, first_byte, isolation, neighbours, retry
from bench.installation import Installation
from bench.process import ROOT
from bench.results import Results
from bench.usage import machine_busy_s

FIGURES = {
    "delivered": delivered.measure,
    "accept": accept.measure,
    "first-byte": first_byte.measure,
    "isolation": isolation.measure,
    "backlog": backlog.measure,
    "retry": retry.measure,
    "neighbours": neighbours.measure,
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
        open_environment(installation, QUICK if results.quick else FULL, results) as environment,
    ):
        measurements = FIGURES | scenarios.SCENARIOS
        for name in names or list(FIGURES if results.quick else measurements):
            start, busy_s, own_s = time.monotonic(), machine_busy_s(), installation.cpu_s()
            await measurements[name](environment)
            seconds = time.monotonic() - start
            others = (machine_busy_s() - busy_s - installation.cpu_s() + own_s) / seconds / (os.cpu_count() or 1)
            results.note("share of the machine that others took meanwhile", **{name: max(0.0, others)})
            print(f"{name}: {seconds:.1f} s", file=sys.stderr, flush=True)
            _write(results, path)  # after each measurement, so that an interrupted run keeps its results


def main() -> None:
    """Run the benchmarks and print the results."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the promised figures alone, with wider error bars")
    parser.add_argument("--only", action="append", default=[], choices=[*FIGURES, *scenarios.SCENARIOS])
    parser.add_argument(
        "--directory", type=Path, default=ROOT / "build/bench", help="where the servers keep their data"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    results = Results(options.quick, _machine())
    uvloop.run(_run(options.only, options.directory, results, options.results))
    print(table.render(results))
    charts.draw(results, REPORT)
    print(f"results: {options.results}   pictures: {REPORT}")


if __name__ == "__main__":
    main()
