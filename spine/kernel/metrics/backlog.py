"""Gauges of the backlog in Postgres. Every worker reads the same rows, so every worker exports the same values."""

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client import Gauge

from spine.kernel.metrics.labels import Labelled
from spine.kernel.metrics.registry import shared_gauge

QueueName = Literal["delivery", "message"]

FAILING_FOR: Final[Mapping[str, int]] = {"5m": 300, "1h": 3600, "1d": 86_400}
"""Seconds for which all attempts of an endpoint failed, by the label value that counts such endpoints."""

_outbox_rows: Final = shared_gauge("spine_outbox_rows", "Events that wait for the relay")
_outbox_age: Final = shared_gauge("spine_outbox_oldest_age_seconds", "Age of the oldest event that waits for the relay")
_open: Final = shared_gauge("spine_queue_open", "Deliveries and messages that have not ended", "cargo", "state")
_due: Final = shared_gauge("spine_queue_due", "Rows that may be claimed now", "cargo")
_oldest_due: Final = shared_gauge(
    "spine_queue_oldest_due_age_seconds", "How long the row that is longest due has been due", "cargo"
)
_leased: Final = shared_gauge("spine_queue_leased", "Rows that a worker holds", "cargo")
_parked: Final = shared_gauge("spine_queue_parked", "Deliveries behind an endpoint that has all its calls under way")
_dead_letters: Final = shared_gauge("spine_dead_letters", "Dead letters that nobody has replayed")
_failing: Final = shared_gauge(
    "spine_endpoints_failing", "Enabled endpoints without a success for longer than this", "longer_than"
)
_disabled: Final = shared_gauge("spine_endpoints_disabled", "Endpoints that are disabled")
_default_partition_rows: Final = shared_gauge(
    "spine_default_partition_rows", "Rows in a default partition that belong to a day partition", "table"
)
_observed_at: Final = shared_gauge(
    "spine_queue_observed_timestamp_seconds", "When the figures of the queues were last read"
)


@dataclass(frozen=True, slots=True)
class QueueStats:
    """Statistics of one queue: open rows by state, due rows, leased rows, age of the longest due row in seconds."""

    open: Mapping[str, int]
    due: int
    leased: int
    oldest_due_age_s: float


@dataclass(frozen=True, slots=True)
class BacklogStats:
    """Statistics of the backlog in Postgres. The keys of `endpoints_failing` are those of FAILING_FOR."""

    outbox_rows: int
    outbox_oldest_age_s: float
    queues: Mapping[QueueName, QueueStats]
    parked: int
    dead_letters: int
    endpoints_failing: Mapping[str, int]
    endpoints_disabled: int


_exported: Final[set[Gauge]] = set()
_exported_tables: Final[set[Gauge]] = set()


def observe_queue(stats: BacklogStats | None) -> None:
    """Set the gauges of the backlog; with None, set them to NaN, so that an old value does not look current.

    The maximum over all workers ignores NaN.
    """
    if stats is None:
        for gauge in _exported | _exported_tables:
            gauge.set(math.nan)
        return
    values = {labelled(*labels): value for labelled, value, labels in _values(stats)}
    _exported.update(values)
    for gauge in _exported:
        gauge.set(values.get(gauge, 0))
    _observed_at().set(time.time())


def observe_default_partition(table: str, rows: int) -> None:
    """Set how many rows of a partitioned table are in its default partition and belong to a day partition."""
    gauge = _default_partition_rows(table)
    _exported_tables.add(gauge)
    gauge.set(rows)


def _values(stats: BacklogStats) -> Iterable[tuple[Labelled[Gauge], float, tuple[str, ...]]]:
    yield _outbox_rows, stats.outbox_rows, ()
    yield _outbox_age, stats.outbox_oldest_age_s, ()
    for name, queue in stats.queues.items():
        for state, rows in queue.open.items():
            yield _open, rows, (name, state)
        yield _due, queue.due, (name,)
        yield _leased, queue.leased, (name,)
        yield _oldest_due, queue.oldest_due_age_s, (name,)
    yield _parked, stats.parked, ()
    yield _dead_letters, stats.dead_letters, ()
    for longer_than, endpoints in stats.endpoints_failing.items():
        yield _failing, endpoints, (longer_than,)
    yield _disabled, stats.endpoints_disabled, ()
