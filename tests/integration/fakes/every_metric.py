"""A process that updates every metric repeatedly, as a busy installation does. Prints the port of its /metrics."""

import time
from itertools import count

from spine.kernel import metrics
from spine.kernel.metrics import BacklogStats, PoolStats, QueueStats

STATS = BacklogStats(
    outbox_rows=3,
    outbox_oldest_age_s=0.2,
    queues={
        "delivery": QueueStats({"pending": 2, "retrying": 4, "held": 1}, due=1, leased=2, oldest_due_age_s=0.3),
        "message": QueueStats({"queued": 1}, due=1, leased=0, oldest_due_age_s=0.1),
    },
    parked=1,
    dead_letters=2,
    endpoints_failing=dict.fromkeys(metrics.FAILING_FOR, 1),
    endpoints_disabled=1,
)


def update_api_metrics(number: int) -> None:
    """Update the metrics of an API process."""
    for event_type in ("message.created", "order.paid"):
        metrics.events_accepted(event_type).inc()
    metrics.messages_accepted("notifications").inc()
    metrics.idempotent_replay()
    metrics.rate_limited()
    metrics.http_request("POST", "/v1/events", 500 if number % 10 == 0 else 201, 0.004)


def update_worker_metrics() -> None:
    """Update the delivery and message metrics of a worker."""
    for event_type in ("message.created", "order.paid"):
        metrics.delivered(event_type).inc(10)
        metrics.failed(event_type).inc()
        metrics.dead(event_type).inc()
    metrics.attempt_errors("timeout").inc()
    metrics.retries("1").inc()
    metrics.attempt_seconds("delivered").observe(0.02)
    metrics.attempt_seconds("failed").observe(0.5)
    metrics.lateness_seconds("first").observe(0.004)
    metrics.lateness_seconds("retry").observe(0.1)
    metrics.first_byte(0.012)
    metrics.message_attempts("sms", "sandbox", "accepted").inc()
    metrics.messages_ended("delivered").inc()
    metrics.provider_seconds("sms", "sandbox").observe(0.1)
    metrics.step_wait_seconds("sms").observe(2)
    metrics.breaker_openings("sms", "http").inc()
    metrics.provider_callbacks("twilio", "taken").inc()
    metrics.provider_cost_micros("sms", "twilio").inc(120_000)
    metrics.receipt_seconds("sms", "twilio").observe(3)
    metrics.duplicates_possible().inc()


def update_process_metrics() -> None:
    """Update the metrics of pools, wakeups, the recorder and the maintenance jobs of a worker."""
    metrics.recorded(20, 0.003)
    metrics.results_set_apart("reduced").inc()
    metrics.steps_put_off("replay").inc()
    metrics.jobs_run("billing.draft_invoice", "done").inc()
    metrics.jobs_late_s().set(0.0)
    metrics.observe_transitions(2)
    metrics.wakeups_sent("relay").inc()
    metrics.wakeups_received("relay").inc()
    metrics.observe_sender(5, 7)
    metrics.observe_worker("worker-1", "0.1.0")
    metrics.clock_offset(0.004)
    metrics.observe_queue(STATS)
    metrics.observe_default_partition("events", 1)
    for pool in ("database", "redis"):
        metrics.observe_pool(pool, PoolStats(size=4, in_use=2, limit=10))
        metrics.pool_acquire_seconds(pool).observe(0.001)


if __name__ == "__main__":
    metrics.EVENT_TYPES.declare(["message.created"])
    port, _ = metrics.serve(0, "127.0.0.1")
    print(port, flush=True)  # noqa: T201  # the test reads it
    for number in count():
        update_api_metrics(number)
        update_worker_metrics()
        update_process_metrics()
        time.sleep(0.2)
