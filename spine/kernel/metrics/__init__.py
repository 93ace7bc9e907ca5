"""All metrics of Spine. Each metric is declared once; dashboards and rules use these names.

Processes count events: add these counters up over the processes. The gauges of `backlog` are read from Postgres by
every worker with the same result: take their maximum.

API processes behind one port share a directory (PROMETHEUS_MULTIPROC_DIR; prometheus-client reads it on import). The
process that starts them sets it to a new, empty directory. Each process answers a scrape for all of them.
"""

import time
from dataclasses import dataclass
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from spine.kernel.metrics.backlog import (
    FAILING_FOR,
    BacklogStats,
    QueueName,
    QueueStats,
    observe_default_partition,
    observe_queue,
)
from spine.kernel.metrics.labels import ByType, EventTypes
from spine.kernel.metrics.registry import REGISTRY, counter, gauge, histogram, shared_gauge
from spine.kernel.metrics.scrape import exposition, serve

# Other modules import these names from the package.
__all__ = [
    "FAILING_FOR",
    "BacklogStats",
    "QueueName",
    "QueueStats",
    "exposition",
    "observe_default_partition",
    "observe_queue",
    "serve",
]

_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
_FAST: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15)
_CALL: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 20)
_LATE: Final = (0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 60, 300, 1800)
_WAIT: Final = (1, 5, 15, 60, 300, 900, 3600, 14_400, 86_400)
_ROWS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

EVENT_TYPES: Final = EventTypes()
"""The event types that get their own label values. Entry points declare the catalogue's types before they serve."""

# Requests.
events_accepted: Final = ByType(
    "spine_events_accepted_total", "Events committed with their outbox row", EVENT_TYPES, REGISTRY
)
messages_accepted: Final = counter(
    "spine_messages_accepted_total", "Messages committed, by the product that asked", "product"
)
_idempotent_replays: Final = Counter(
    "spine_idempotent_replays_total", "Requests answered from an earlier result", registry=REGISTRY
)
_rate_limited: Final = counter(
    "spine_rate_limited_total", "Requests refused with 429, by the limit that refused", "limit"
)
_http_requests: Final = counter("spine_http_requests_total", "Requests answered", "method", "route", "status")
_http_seconds: Final = histogram("spine_http_request_seconds", "Time to answer a request", _FAST, "method", "route")

# Deliveries to endpoints.
delivered: Final = ByType("spine_deliveries_delivered_total", "Deliveries that an endpoint took", EVENT_TYPES, REGISTRY)
failed: Final = ByType(
    "spine_delivery_attempts_failed_total", "Attempts at a delivery that failed", EVENT_TYPES, REGISTRY
)
dead: Final = ByType("spine_deliveries_dead_total", "Deliveries that became dead letters", EVENT_TYPES, REGISTRY)
attempt_errors: Final = counter(
    "spine_delivery_attempt_errors_total", "Failed attempts at a delivery, by error code", "error"
)
retries: Final = counter("spine_delivery_retries_total", "Retries scheduled, by step of the schedule (1 to 7)", "step")
attempt_seconds: Final = histogram(
    "spine_delivery_attempt_seconds", "Time from request to verdict (delivered, failed)", _CALL, "outcome"
)
lateness_seconds: Final = histogram(
    "spine_delivery_lateness_seconds", "Time from due to the start of an attempt (first, retry)", _LATE, "attempt"
)
_first_byte_seconds: Final = Histogram(
    "spine_commit_to_first_byte_seconds",
    "Time from an event's commit to the first byte of its first attempt",
    registry=REGISTRY,
    buckets=_LATE,
)

# Messages to people.
message_attempts: Final = counter(
    "spine_message_attempts_total",
    "Calls to providers: accepted, rejected or unknown",
    "channel",
    "provider",
    "outcome",
)
messages_ended: Final = counter(
    "spine_messages_ended_total", "Messages that reached an end, by their last state", "status"
)
provider_seconds: Final = histogram(
    "spine_provider_call_seconds", "Time of a call to a provider", _CALL, "channel", "provider"
)
breaker_openings: Final = counter(
    "spine_breaker_openings_total", "Openings of circuit breakers of provider accounts", "channel", "provider"
)
provider_cost_micros: Final = counter(
    "spine_provider_cost_micros_total", "What messages cost, in millionths of currencies", "channel", "provider"
)
receipt_seconds: Final = histogram(
    "spine_receipt_seconds", "Time from a call to its report of delivery", _WAIT, "channel", "provider"
)
duplicates_possible: Final = counter(
    "spine_messages_duplicate_possible_total", "Messages that ended and may have reached the person twice"
)
provider_callbacks: Final = counter(
    "spine_provider_callbacks_total",
    "Callbacks of providers: taken, malformed, refused (no valid signature)",
    "provider",
    "outcome",
)
step_wait_seconds: Final = histogram(
    "spine_message_step_wait_seconds", "Time a step was waited for, to success or the next", _WAIT, "channel"
)

# Internals of a process.
_in_flight: Final = gauge("spine_sender_in_flight", "Calls to endpoints under way")
_waiting: Final = gauge("spine_sender_waiting", "Deliveries claimed and waiting for room in the sender")
recorder_rows: Final = Histogram("spine_recorder_batch_rows", "Results in one commit", registry=REGISTRY, buckets=_ROWS)
recorder_seconds: Final = Histogram(
    "spine_recorder_commit_seconds", "Time to commit a batch of results", registry=REGISTRY, buckets=_FAST
)
_transitions: Final = shared_gauge(
    "spine_endpoint_transitions", "Endpoints whose open deliveries still follow a change of the endpoint"
)
steps_put_off: Final = counter(
    "spine_steps_put_off_total", "Steps of long work that failed and are repeated later, by the work", "work"
)
jobs_run: Final = counter("spine_jobs_total", "Jobs of products, by kind and outcome (done, failed)", "kind", "outcome")
jobs_late_s: Final = shared_gauge("spine_jobs_late_seconds", "How long the oldest due job of a product has been due")
results_set_apart: Final = counter(
    "spine_results_set_apart_total",
    "Results that Postgres refused to store, by what was done (reduced, put_off, dead)",
    "outcome",
)
wakeups_sent: Final = counter("spine_bells_rung_total", "Bells put into Redis", "bell")
wakeups_received: Final = counter("spine_bells_heard_total", "Bells that woke a worker", "bell")
_pool_size: Final = gauge("spine_pool_connections", "Open connections", "pool")
_pool_in_use: Final = gauge("spine_pool_connections_in_use", "Connections lent out", "pool")
_pool_limit: Final = gauge("spine_pool_connections_limit", "Most connections the pool may open", "pool")
_pool_waiting: Final = gauge("spine_pool_waiting", "Tasks waiting for a connection", "pool")
pool_acquire_seconds: Final = histogram("spine_pool_acquire_seconds", "Time to get a connection", _FAST, "pool")
_worker_info: Final = gauge("spine_worker_info", "1 for a running worker", "worker", "version")
_worker_heartbeat: Final = Gauge(
    "spine_worker_heartbeat_timestamp_seconds",
    "When the worker last did its rounds",
    registry=REGISTRY,
    multiprocess_mode="max",
)
_clock_offset: Final = shared_gauge(
    "spine_clock_offset_seconds", "Seconds that the database's clock is ahead of this machine's"
)


@dataclass(frozen=True, slots=True)
class PoolStats:
    """Statistics of a connection pool."""

    size: int
    in_use: int
    limit: int
    waiting: int = 0


def idempotent_replay() -> None:
    """Count a request that was answered from an earlier result."""
    _idempotent_replays.inc()


def rate_limited(limit: str = "requests") -> None:
    """Count a request refused with 429. `limit` is the name of the limit that refused it."""
    _rate_limited(limit).inc()


def http_request(method: str, route: str, status: int, seconds: float) -> None:
    """Count an answered request. `route` is the route template, never the path. Status 0 means that no answer was sent."""
    method = method if method in _METHODS else "other"
    _http_requests(method, route, str(status) if status else "none").inc()
    _http_seconds(method, route).observe(seconds)


def first_byte(seconds: float) -> None:
    """Record the time from an event's commit to the start of its first attempt."""
    _first_byte_seconds.observe(seconds)


def recorded(rows: int, seconds: float) -> None:
    """Record a group commit of results."""
    recorder_rows.observe(rows)
    recorder_seconds.observe(seconds)


def observe_transitions(endpoints: int) -> None:
    """Set the number of endpoints whose deliveries still follow."""
    _transitions().set(endpoints)


def observe_sender(in_flight: int, waiting: int) -> None:
    """Set the gauges of this process's sender."""
    _in_flight().set(in_flight)
    _waiting().set(waiting)


def observe_pool(pool: str, stats: PoolStats) -> None:
    """Set the gauges of one connection pool of this process (`database`, `redis`)."""
    _pool_size(pool).set(stats.size)
    _pool_in_use(pool).set(stats.in_use)
    _pool_limit(pool).set(stats.limit)
    _pool_waiting(pool).set(stats.waiting)


def observe_worker(worker: str, version: str) -> None:
    """Record a heartbeat of this worker."""
    _worker_info(worker, version).set(1)
    _worker_heartbeat.set(time.time())


def clock_offset(seconds: float) -> None:
    """Set how far the database's clock is ahead of this machine's."""
    _clock_offset().set(seconds)
