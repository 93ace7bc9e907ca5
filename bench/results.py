"""What a run found: promised figures with their spread, everything beside them, and series for the pictures."""

from dataclasses import asdict, dataclass, field
from typing import Any, Final

from bench.reconciliation import Account
from bench.stats import Cost, Spread


@dataclass(frozen=True, slots=True)
class Promise:
    """A figure that was promised, and the side of the bound on which it must lie."""

    bound: float
    at_least: bool
    what: str

    def holds(self, value: float) -> bool:
        """Whether it is kept."""
        return value >= self.bound if self.at_least else value <= self.bound

    @property
    def shown(self) -> str:
        """The bound in few signs."""
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
    "retry_early": Promise(0, False, "retries that came before their time"),
}


@dataclass
class Results:
    """Filled by the figures, one after another."""

    quick: bool
    machine: dict[str, Any]
    promised: dict[str, Spread] = field(default_factory=dict)
    notes: dict[str, dict[str, Any]] = field(default_factory=dict)
    costs: dict[str, Cost] = field(default_factory=dict)
    accounts: list[Account] = field(default_factory=list)
    latencies_ms: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """Picture → curve → times."""
    cpu_us: dict[str, dict[str, float]] = field(default_factory=dict)
    """Picture → part → microseconds per delivery."""
    over_time: dict[str, dict[str, list[tuple[float, float]]]] = field(default_factory=dict)
    """Picture → curve → (seconds, value)."""

    def note(self, about: str, **figures: Any) -> None:
        """Keep absolute figures beside the promised ones."""
        self.notes.setdefault(about, {}).update(figures)

    def as_json(self) -> dict[str, Any]:
        """What results.json holds: each promised figure as a number under its own name, the rest beside."""
        return {
            **{name: spread.median for name, spread in self.promised.items()},
            "held": {name: PROMISES[name].holds(spread.median) for name, spread in self.promised.items()},
            "spread": {name: asdict(spread) for name, spread in self.promised.items()},
            "quick": self.quick,
            "machine": self.machine,
            "absolute": self.notes,
            "per_event": {name: asdict(cost) for name, cost in self.costs.items()},
            "accounts": [asdict(account) for account in self.accounts],
        }
