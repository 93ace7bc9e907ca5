"""The results of a run: promised figures with their spread, other measurements, and series for the charts."""

from dataclasses import asdict, dataclass, field
from typing import Any, Final

from bench.reconciliation import Reconciliation
from bench.stats import Cost, Latency, Spread


@dataclass(frozen=True, slots=True)
class Promise:
    """A promised figure: its bound, and whether the value must be at least or at most the bound."""

    bound: float
    at_least: bool
    what: str

    def holds(self, value: float) -> bool:
        """Return True if the value keeps the promise."""
        return value >= self.bound if self.at_least else value <= self.bound

    @property
    def shown(self) -> str:
        """The bound as short text."""
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}"


PROMISES: Final[dict[str, Promise]] = {
    "delivered_ratio": Promise(0.40, True, "delivered/s, one worker, full ledger, over the bare client loop"),
    "two_workers_ratio": Promise(1.6, True, "delivered/s, two workers over one"),
    "accept_ratio": Promise(0.10, True, "events accepted/s one by one, over the no-op route"),
    "accept_batch_ratio": Promise(0.5, True, "events accepted/s in batches of 100, over the no-op route"),
    "first_byte_p50_ms": Promise(15, False, "commit to first byte at 200 events/s, p50, ms"),
    "first_byte_p99_ms": Promise(50, False, "commit to first byte at 200 events/s, p99, ms"),
    "isolation_ratio": Promise(1.5, False, "p99 of 18 healthy receivers with one hanging, one refusing, over without"),
    "backlog_ratio": Promise(0.8, True, "claims/s with the large backlog over those with 10,000"),
    "retry_late_p99_ms": Promise(250, False, "lateness of retries at 1,000 due per second, p99, ms"),
    "neighbour_first_byte_ratio": Promise(2, False, "p99 to first byte beside a workspace that hurts, over alone"),
    "neighbour_send_ratio": Promise(2, False, "p99 from a message to its send beside 3,000 slow sends, over alone"),
    "neighbour_retry_late_p99_ms": Promise(250, False, "lateness of retries beside many due rows of another, p99, ms"),
    "retry_early": Promise(0, False, "retries that came before their time"),
}


@dataclass(frozen=True, slots=True)
class Neighbour:
    """What a quiet workspace sees alone, and beside one that hurts."""

    hurter: str
    sees: str
    alone: Latency
    beside: Latency


@dataclass
class Results:
    """Results that the measurements add one after another."""

    quick: bool
    machine: dict[str, Any]
    promised: dict[str, Spread] = field(default_factory=dict)
    notes: dict[str, dict[str, Any]] = field(default_factory=dict)
    costs: dict[str, Cost] = field(default_factory=dict)
    reconciliations: list[Reconciliation] = field(default_factory=list)
    neighbours: list[Neighbour] = field(default_factory=list)
    latencies_ms: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """Chart → curve → times."""
    cpu_us: dict[str, dict[str, float]] = field(default_factory=dict)
    """Chart → part → microseconds per delivery."""
    over_time: dict[str, dict[str, list[tuple[float, float]]]] = field(default_factory=dict)
    """Chart → curve → (seconds, value)."""

    def note(self, about: str, **values: Any) -> None:
        """Add absolute values beside the promised figures."""
        self.notes.setdefault(about, {}).update(values)

    def as_json(self) -> dict[str, Any]:
        """Return the content of results.json: each promised figure as a number under its name, and the other results."""
        return {
            **{name: spread.median for name, spread in self.promised.items()},
            "held": {name: PROMISES[name].holds(spread.median) for name, spread in self.promised.items()},
            "spread": {name: asdict(spread) for name, spread in self.promised.items()},
            "quick": self.quick,
            "machine": self.machine,
            "absolute": self.notes,
            "per_event": {name: asdict(cost) for name, cost in self.costs.items()},
            "neighbours": [asdict(neighbour) for neighbour in self.neighbours],
            "accounts": [asdict(reconciliation) for reconciliation in self.reconciliations],
        }
