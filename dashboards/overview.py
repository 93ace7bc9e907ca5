"""The overview board: the health of Spine, and the metrics to read first when it is not healthy."""

from typing import Final

from dashboards.messages import MESSAGES
from dashboards.panel import Board, Panel, Query, Row, quantile, rate, shared

_SERVER_ERROR: Final = '{status=~"5.."}'

_NOW: Final = Row(
    "Now",
    (
        Panel(
            "Workers alive",
            (Query("count(time() - spine_worker_heartbeat_timestamp_seconds < 30) or vector(0)"),),
            kind="stat",
            width=4,
        ),
        Panel("Oldest due", (Query(shared("spine_queue_oldest_due_age_seconds")),), "s", kind="stat", red=60, width=4),
        Panel("Outbox", (Query(shared("spine_outbox_rows")),), kind="stat", red=10_000, width=4),
        Panel("Dead letters", (Query(shared("spine_dead_letters")),), kind="stat", red=1, width=4),
        Panel(
            "Endpoints failing for an hour",
            (Query(shared("spine_endpoints_failing", where='{longer_than="1h"}')),),
            kind="stat",
            red=1,
            width=4,
        ),
        Panel(
            "API errors",
            (
                Query(
                    f"({rate('spine_http_requests_total', where=_SERVER_ERROR)} or vector(0))"
                    f" / {rate('spine_http_requests_total')}"
                ),
            ),
            "percentunit",
            kind="stat",
            red=0.01,
            width=4,
        ),
    ),
)

_IN: Final = Row(
    "In",
    (
        Panel(
            "Accepted",
            (
                Query(rate("spine_events_accepted_total", "product"), "events {{product}}"),
                Query(rate("spine_messages_accepted_total", "product"), "messages {{product}}"),
            ),
            "ops",
        ),
        Panel("Requests by status", (Query(rate("spine_http_requests_total", "status"), "{{status}}"),), "reqps"),
        Panel(
            "Time to answer",
            (
                Query(quantile(0.5, "spine_http_request_seconds"), "p50"),
                Query(quantile(0.99, "spine_http_request_seconds"), "p99"),
            ),
            "s",
        ),
        Panel(
            "Slowest routes (p99)",
            (
                Query(
                    f"topk(5, {quantile(0.99, 'spine_http_request_seconds', 'method, route')})", "{{method}} {{route}}"
                ),
            ),
            "s",
            width=12,
        ),
        Panel(
            "Replayed and refused",
            (
                Query(rate("spine_idempotent_replays_total"), "answered from an earlier result"),
                Query(rate("spine_rate_limited_total", "limit"), "refused: {{limit}}"),
            ),
            "reqps",
            width=12,
        ),
    ),
)

_OUT: Final = Row(
    "Out",
    (
        Panel(
            "Deliveries",
            (
                Query(rate("spine_deliveries_delivered_total"), "delivered"),
                Query(rate("spine_delivery_attempts_failed_total"), "failed attempts"),
                Query(rate("spine_deliveries_dead_total"), "dead"),
            ),
            "ops",
        ),
        Panel(
            "Commit to first byte",
            (
                Query(quantile(0.5, "spine_commit_to_first_byte_seconds"), "p50"),
                Query(quantile(0.99, "spine_commit_to_first_byte_seconds"), "p99"),
            ),
            "s",
            red=0.05,
            text="From an event's commit to the first byte of its first attempt.",
        ),
        Panel(
            "Lateness (p99)",
            (Query(quantile(0.99, "spine_delivery_lateness_seconds", "attempt"), "{{attempt}}"),),
            "s",
            red=0.25,
            text="From due to the start of the attempt; 250 ms is promised while capacity is free.",
        ),
    ),
)

_QUEUES: Final = Row(
    "Queues",
    (
        Panel("Open", (Query(shared("spine_queue_open", "cargo, state"), "{{cargo}} {{state}}"),), width=6),
        Panel(
            "Due and leased",
            (
                Query(shared("spine_queue_due", "cargo"), "{{cargo}} due"),
                Query(shared("spine_queue_leased", "cargo"), "{{cargo}} leased"),
            ),
            width=6,
        ),
        Panel(
            "Age of the oldest",
            (
                Query(shared("spine_queue_oldest_due_age_seconds", "cargo"), "{{cargo}} due"),
                Query(shared("spine_outbox_oldest_age_seconds"), "outbox"),
            ),
            "s",
            red=60,
            width=6,
        ),
        Panel("Outbox", (Query(shared("spine_outbox_rows"), "events"),), width=6),
    ),
)

_PROCESSES: Final = Row(
    "Processes",
    (
        Panel(
            "Connections",
            (
                Query("sum by (pool, instance) (spine_pool_connections_in_use)", "{{pool}} in use, {{instance}}"),
                Query("sum by (pool, instance) (spine_pool_connections)", "{{pool}} open, {{instance}}"),
                Query("sum by (pool, instance) (spine_pool_connections_limit)", "{{pool}} limit, {{instance}}"),
            ),
        ),
        Panel(
            "Waiting for a connection",
            (Query("sum by (pool, instance) (spine_pool_waiting)", "{{pool}}, {{instance}}"),),
            red=1,
        ),
        Panel(
            "Time to get a connection (p99)",
            (Query(quantile(0.99, "spine_pool_acquire_seconds", "pool"), "{{pool}}"),),
            "s",
        ),
        Panel(
            "Results in a commit",
            (Query(f"{rate('spine_recorder_batch_rows_sum')} / {rate('spine_recorder_batch_rows_count')}", "mean"),),
        ),
        Panel(
            "Time to commit results",
            (
                Query(quantile(0.5, "spine_recorder_commit_seconds"), "p50"),
                Query(quantile(0.99, "spine_recorder_commit_seconds"), "p99"),
            ),
            "s",
        ),
        Panel(
            "Clock behind the database's",
            (Query("max by (instance) (spine_clock_offset_seconds)", "{{instance}}"),),
            "s",
            red=1,
            text="Negative: ahead of it. Due times and wakeups follow the database's clock; signatures carry this machine's.",
        ),
        Panel(
            "Wakeups",
            (
                Query(rate("spine_bells_rung_total", "bell"), "{{bell}} sent"),
                Query(rate("spine_bells_heard_total", "bell"), "{{bell}} received"),
            ),
            "ops",
        ),
        Panel(
            "CPU",
            (Query(rate("process_cpu_seconds_total", "instance", '{job=~"spine-.+"}'), "{{instance}}"),),
            "percentunit",
        ),
        Panel("Memory", (Query('process_resident_memory_bytes{job=~"spine-.+"}', "{{instance}}"),), "bytes"),
        Panel("Open files", (Query('process_open_fds{job=~"spine-.+"}', "{{instance}}"),)),
        Panel("Workers by version", (Query("count by (version) (spine_worker_info)", "{{version}}"),)),
        Panel(
            "Age of the queue statistics",
            (Query("time() - max(spine_queue_observed_timestamp_seconds)", "age"),),
            "s",
            red=60,
        ),
        Panel(
            "Rows in default partitions",
            (Query(shared("spine_default_partition_rows", "table"), "{{table}}"),),
            red=1,
            text="They belong to a day whose partition is missing. Maintenance moves them out.",
        ),
    ),
)

OVERVIEW: Final = Board(
    uid="spine-overview",
    title="Spine: overview",
    text="The health of Spine.",
    rows=(_NOW, _IN, _OUT, _QUEUES, MESSAGES, _PROCESSES),
)
