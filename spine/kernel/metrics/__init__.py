"""Every figure Spine shows of itself: each metric is declared here once, dashboards and rules read these names.

Processes count what they do (sum those over processes). What stands in Postgres is read by every worker and is the
same figure each time (take the maximum of those, see `observe_queue`).

Several API processes behind one port share a directory (PROMETHEUS_MULTIPROC_DIR, which prometheus-client reads when it
is imported): whoever starts them sets it to a fresh, empty one, and any of them answers for all.
"""

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client import Counter, Gauge, Histogram

from spine.kernel.metrics.labels import ByType, EventTypes, Labelled
from spine.kernel.metrics.scrape import REGISTRY
from spine.kernel.metrics.scrape import exposition as exposition
from spine.kernel.metrics.scrape import serve as serve

QueueName = Literal["delivery", "message"]

FAILING_FOR: Final[Mapping[str, int]] = {"5m": 300, "1h": 3600, "1d": 86_400}
"""How long an endpoint has only failed, in seconds, by the label that counts such endpoints."""

_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
_FAST: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15)
_CALL: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 20)
_LATE: Final = (0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 60, 300, 1800)
_WAIT: Final = (1, 5, 15, 60, 300, 900, 3600, 14_400, 86_400)
_ROWS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

EVENT_TYPES: Final = EventTypes()
"""The front doors declare the catalogue's types here before they serve."""


def _counter(name: str, documentation: str, *labels: str) -> Labelled[Counter]:
    return Labelled(Counter(name, documentation, labels, registry=REGISTRY), labels)


def _histogram(name: str, documentation: str, buckets: tuple[float, ...], *labels: str) -> Labelled[Histogram]:
    return Labelled(Histogram(name, documentation, labels, registry=REGISTRY, buckets=buckets), labels)


def _gauge(name: str, documentation: str, *labels: str) -> Labelled[Gauge]:
    """A gauge of this process alone; processes behind one port are added up while they live."""
    return Labelled(Gauge(name, documentation, labels, registry=REGISTRY, multiprocess_mode="livesum"), labels)


def _shared(name: str, documentation: str, *labels: str) -> Labelled[Gauge]:
    """A gauge that is the same whoever reads it."""
    return Labelled(Gauge(name, documentation, labels, registry=REGISTRY, multiprocess_mode="livemostrecent"), labels)


# What came in.
events_accepted: Final = ByType(
    "spine_events_accepted_total", "Events committed with their outbox row", EVENT_TYPES, REGISTRY
)
messages_accepted: Final = _counter(
    "spine_messages_accepted_total", "Messages committed, by the product that asked", "product"
)
_idempotent_replays: Final = Counter(
    "spine_idempotent_replays_total", "Requests answered from an earlier result", registry=REGISTRY
)
_rate_limited: Final = _counter(
    "spine_rate_limited_total", "Requests refused with 429, by the limit that refused", "limit"
)
_http_requests: Final = _counter("spine_http_requests_total", "Requests answered", "method", "route", "status")
_http_seconds: Final = _histogram("spine_http_request_seconds", "Time to answer a request", _FAST, "method", "route")

# What went out to endpoints.
delivered: Final = ByType("spine_deliveries_delivered_total", "Deliveries that an endpoint took", EVENT_TYPES, REGISTRY)
failed: Final = ByType(
    "spine_delivery_attempts_failed_total", "Attempts at a delivery that failed", EVENT_TYPES, REGISTRY
)
dead: Final = ByType("spine_deliveries_dead_total", "Deliveries that became dead letters", EVENT_TYPES, REGISTRY)
attempt_errors: Final = _counter(
    "spine_delivery_attempt_errors_total", "Failed attempts at a delivery, by error code", "error"
)
retries: Final = _counter("spine_delivery_retries_total", "Retries scheduled, by step of the schedule (1 to 7)", "step")
attempt_seconds: Final = _histogram(
    "spine_delivery_attempt_seconds", "Time from request to verdict (delivered, failed)", _CALL, "outcome"
)
lateness_seconds: Final = _histogram(
    "spine_delivery_lateness_seconds", "Time from due to the start of an attempt (first, retry)", _LATE, "attempt"
)
_first_byte_seconds: Final = Histogram(
    "spine_commit_to_first_byte_seconds",
    "Time from an event's commit to the first byte of its first attempt",
    registry=REGISTRY,
    buckets=_LATE,
)

# What went out to people.
message_attempts: Final = _counter(
    "spine_message_attempts_total",
    "Calls to providers: accepted, rejected or unknown",
    "channel",
    "provider",
    "outcome",
)
messages_ended: Final = _counter(
    "spine_messages_ended_total", "Messages that reached an end, by their last state", "status"
)
provider_seconds: Final = _histogram(
    "spine_provider_call_seconds", "Time of a call to a provider", _CALL, "channel", "provider"
)
step_wait_seconds: Final = _histogram(
    "spine_message_step_wait_seconds", "Time a step was waited for, to success or the next", _WAIT, "channel"
)

# How a process works.
_in_flight: Final = _gauge("spine_sender_in_flight", "Calls to endpoints under way")
_waiting: Final = _gauge("spine_sender_waiting", "Deliveries claimed and waiting for room in the sender")
recorder_rows: Final = Histogram("spine_recorder_batch_rows", "Results in one commit", registry=REGISTRY, buckets=_ROWS)
recorder_seconds: Final = Histogram(
    "spine_recorder_commit_seconds", "Time to commit a batch of results", registry=REGISTRY, buckets=_FAST
)
wakeups_sent: Final = _counter("spine_bells_rung_total", "Bells put into Redis", "bell")
wakeups_received: Final = _counter("spine_bells_heard_total", "Bells that woke a worker", "bell")
_pool_size: Final = _gauge("spine_pool_connections", "Open connections", "pool")
_pool_in_use: Final = _gauge("spine_pool_connections_in_use", "Connections lent out", "pool")
_pool_limit: Final = _gauge("spine_pool_connections_limit", "Most connections the pool may open", "pool")
_pool_waiting: Final = _gauge("spine_pool_waiting", "Tasks waiting for a connection", "pool")
pool_acquire_seconds: Final = _histogram("spine_pool_acquire_seconds", "Time to get a connection", _FAST, "pool")
_worker_info: Final = _gauge("spine_worker_info", "1 for a running worker", "worker", "version")
_worker_heartbeat: Final = Gauge(
    "spine_worker_heartbeat_timestamp_seconds",
    "When the worker last did its rounds",
    registry=REGISTRY,
    multiprocess_mode="max",
)

# What stands in Postgres: the same figure from every worker.
_outbox_rows: Final = _shared("spine_outbox_rows", "Events that wait for the relay")
_outbox_age: Final = _shared("spine_outbox_oldest_age_seconds", "Age of the oldest event that waits for the relay")
_open: Final = _shared("spine_queue_open", "Deliveries and messages that have not ended", "cargo", "state")
_due: Final = _shared("spine_queue_due", "Rows that may be claimed now", "cargo")
_oldest_due: Final = _shared(
    "spine_queue_oldest_due_age_seconds", "How long the row that is longest due has been due", "cargo"
)
_leased: Final = _shared("spine_queue_leased", "Rows that a worker holds", "cargo")
_parked: Final = _shared("spine_queue_parked", "Deliveries behind an endpoint that has all its calls under way")
_dead_letters: Final = _shared("spine_dead_letters", "Dead letters that nobody has replayed")
_failing: Final = _shared(
    "spine_endpoints_failing", "Enabled endpoints without a success for longer than this", "longer_than"
)
_disabled: Final = _shared("spine_endpoints_disabled", "Endpoints that are disabled")
_observed: Final = _shared("spine_queue_observed_timestamp_seconds", "When the figures of the queues were last read")


@dataclass(frozen=True, slots=True)
class QueueStats:
    """How the queue of one cargo stands: rows by state, rows due and leased, age of the longest due in seconds."""

    open: Mapping[str, int]
    due: int
    leased: int
    oldest_due_age_s: float


@dataclass(frozen=True, slots=True)
class BacklogStats:
    """What stands in Postgres. `endpoints_failing` is keyed by the labels of FAILING_FOR."""

    outbox_rows: int
    outbox_oldest_age_s: float
    queues: Mapping[QueueName, QueueStats]
    parked: int
    dead_letters: int
    endpoints_failing: Mapping[str, int]
    endpoints_disabled: int


@dataclass(frozen=True, slots=True)
class PoolStats:
    """How a pool of connections stands."""

    size: int
    in_use: int
    limit: int
    waiting: int = 0


def idempotent_replay() -> None:
    """Count a request that was answered from an earlier result."""
    _idempotent_replays.inc()


def rate_limited(limit: str = "requests") -> None:
    """Count a request refused with 429; `limit` names which limit refused."""
    _rate_limited(limit).inc()


def http_request(method: str, route: str, status: int, seconds: float) -> None:
    """Count an answered request. `route` is the route's template, never the path; status 0 means that none was sent."""
    method = method if method in _METHODS else "other"
    _http_requests(method, route, str(status) if status else "none").inc()
    _http_seconds(method, route).observe(seconds)


def first_byte(seconds: float) -> None:
    """Note how long after its event's commit a first attempt began."""
    _first_byte_seconds.observe(seconds)


def recorded(rows: int, seconds: float) -> None:
    """Note a group commit of results."""
    recorder_rows.observe(rows)
    recorder_seconds.observe(seconds)


def observe_sender(in_flight: int, waiting: int) -> None:
    """Show what this process's sender holds."""
    _in_flight().set(in_flight)
    _waiting().set(waiting)


def observe_pool(pool: str, stats: PoolStats) -> None:
    """Show how one of this process's pools stands (`database`, `redis`)."""
    _pool_size(pool).set(stats.size)
    _pool_in_use(pool).set(stats.in_use)
    _pool_limit(pool).set(stats.limit)
    _pool_waiting(pool).set(stats.waiting)


def observe_worker(worker: str, version: str) -> None:
    """Show that this worker is alive, at every round it does."""
    _worker_info(worker, version).set(1)
    _worker_heartbeat.set(time.time())


def observe_queue(stats: BacklogStats | None) -> None:
    """Show what stands in Postgres, or with None that it could not be read: an old figure must not look like a new one.

    A figure that cannot be read is NaN, which the maximum over all workers passes over.
    """
    if stats is None:
        for gauge in _shown:
            gauge.set(math.nan)
        return
    readings = {labelled(*labels): value for labelled, value, labels in _readings(stats)}
    _shown.update(readings)
    for gauge in _shown:
        gauge.set(readings.get(gauge, 0))
    _observed().set(time.time())


_shown: Final[set[Gauge]] = set()


def _readings(stats: BacklogStats) -> Iterable[tuple[Labelled[Gauge], float, tuple[str, ...]]]:
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
