"""Format the results of a run as a table of text."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from bench.costs import ROLES
from bench.results import PROMISES, Results


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Align rows in columns: the first column to the left, the others to the right."""
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if n == 0 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _promised(results: Results) -> str:
    rows = [["promised figure", "measured", "low", "high", "bound", "", ""]]
    for name, promise in PROMISES.items():
        spread = results.promised.get(name)
        if spread is not None:
            kept = "holds" if promise.holds(spread.median) else "FAILS"
            numbers = [_number(value) for value in (spread.median, spread.low, spread.high)]
            rows.append([name, *numbers, promise.shown, kept, promise.what.ljust(80)])
    return columns(rows)


def _costs(results: Results) -> str:
    head = ["per event", *(f"{role} µs" for role in ROLES), "SQL", "commits", "WAL B", "disk B", "Redis"]
    rows = [head]
    for name, cost in results.costs.items():
        values = (
            cost.app_round_trips + cost.worker_round_trips, cost.commits, cost.wal_bytes, cost.disk_bytes, cost.redis_commands,
        )  # fmt: skip
        rows.append([name, *(_number(cost.cpu_us[role]) for role in ROLES), *map(_number, values)])
    memory = [["memory, MB", *ROLES]]
    for name, cost in results.costs.items():
        memory.append([name, *(_number(cost.memory_bytes[role] / 1e6) for role in ROLES)])
    return columns(rows) + "\n\n" + columns(memory)


def _flat(name: str, value: Any) -> Iterable[tuple[str, str]]:
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{name} {key}", inner)
    elif isinstance(value, list):
        yield name, " ".join(_number(item) if isinstance(item, int | float) else str(item) for item in value)
    else:
        yield name, _number(value) if isinstance(value, int | float) else str(value)


def _neighbours(results: Results) -> str:
    rows = [["what another workspace does", "this one's", "alone p50", "p99", "beside p50", "p99 ms"]]
    for found in results.neighbours:
        times = (found.alone.p50_ms, found.alone.p99_ms, found.beside.p50_ms, found.beside.p99_ms)
        rows.append([found.hurter, found.sees, *map(_number, times)])
    return columns(rows)


def _notes(results: Results) -> str:
    rows = [list(row) for about, values in results.notes.items() for row in _flat(about, values)]
    return columns([["beside them", ""], *rows])


def _reconciliations(results: Results) -> str:
    total = [
        sum(getattr(reconciliation, name) for reconciliation in results.reconciliations)
        for name in ("accepted", "delivered", "dead", "open", "received", "duplicates", "lost")
    ]
    names = "accepted {:,} = delivered {:,} + dead {:,} + open {:,}; received {:,}, again {:,}; lost {:,}"
    return f"every id of {len(results.reconciliations)} runs accounted for: " + names.format(*total)


def render(results: Results) -> str:
    """Return all results as text."""
    return "\n\n".join(
        ["", _promised(results), _costs(results), _neighbours(results), _notes(results), _reconciliations(results)]
    )
