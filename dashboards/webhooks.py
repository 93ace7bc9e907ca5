"""The webhooks board: deliveries by product and event type, and the reasons for waiting deliveries."""

from typing import Final

from dashboards.panel import Board, Panel, Query, Row, Variable, quantile, rate, shared

_SELECTED: Final = '{product=~"$product", event_type=~"$event_type"}'
_DELIVERED: Final = "spine_deliveries_delivered_total"
_FAILED: Final = "spine_delivery_attempts_failed_total"
_DEAD: Final = "spine_deliveries_dead_total"

_DELIVERIES: Final = Row(
    "Deliveries",
    (
        Panel("Delivered", (Query(rate(_DELIVERED, "event_type", _SELECTED), "{{event_type}}"),), "ops"),
        Panel("Failed attempts", (Query(rate(_FAILED, "event_type", _SELECTED), "{{event_type}}"),), "ops"),
        Panel("Dead", (Query(rate(_DEAD, "event_type", _SELECTED), "{{event_type}}"),), "ops"),
        Panel(
            "Accepted events",
            (Query(rate("spine_events_accepted_total", "event_type", _SELECTED), "{{event_type}}"),),
            "ops",
        ),
        Panel(
            "Attempts that succeed",
            (
                Query(
                    f"{rate(_DELIVERED, 'product', _SELECTED)} / ({rate(_DELIVERED, 'product', _SELECTED)}"
                    f" + ({rate(_FAILED, 'product', _SELECTED)} or 0 * {rate(_DELIVERED, 'product', _SELECTED)}))",
                    "{{product}}",
                ),
            ),
            "percentunit",
        ),
        Panel("Why attempts fail", (Query(rate("spine_delivery_attempt_errors_total", "error"), "{{error}}"),), "ops"),
    ),
)

_ATTEMPTS: Final = Row(
    "Attempts",
    (
        Panel(
            "Attempt time",
            (
                Query(quantile(0.5, "spine_delivery_attempt_seconds", "outcome"), "{{outcome}} p50"),
                Query(quantile(0.99, "spine_delivery_attempt_seconds", "outcome"), "{{outcome}} p99"),
            ),
            "s",
        ),
        Panel(
            "Attempt time, spread",
            (Query(rate("spine_delivery_attempt_seconds_bucket", "le"), "{{le}}"),),
            "s",
            kind="heatmap",
        ),
        Panel(
            "Retries by step", (Query(rate("spine_delivery_retries_total", "step"), "after failure {{step}}"),), "ops"
        ),
    ),
)

_PRECISION: Final = Row(
    "Precision",
    (
        Panel(
            "Lateness",
            (
                Query(quantile(0.5, "spine_delivery_lateness_seconds", "attempt"), "{{attempt}} p50"),
                Query(quantile(0.99, "spine_delivery_lateness_seconds", "attempt"), "{{attempt}} p99"),
            ),
            "s",
            red=0.25,
            width=12,
            text="From due to the start of the attempt; 250 ms is promised while capacity is free.",
        ),
        Panel(
            "Commit to first byte, spread",
            (Query(rate("spine_commit_to_first_byte_seconds_bucket", "le"), "{{le}}"),),
            "s",
            kind="heatmap",
            width=12,
        ),
    ),
)

_CAPACITY: Final = Row(
    "Capacity",
    (
        Panel("Calls under way", (Query("sum by (instance) (spine_sender_in_flight)", "{{instance}}"),)),
        Panel("Claimed, waiting for capacity", (Query("sum by (instance) (spine_sender_waiting)", "{{instance}}"),)),
        Panel(
            "Due, leased, parked",
            (
                Query(shared("spine_queue_due", where='{cargo="delivery"}'), "due"),
                Query(shared("spine_queue_leased", where='{cargo="delivery"}'), "leased"),
                Query(shared("spine_queue_parked"), "parked"),
            ),
            text="Parked deliveries wait behind an endpoint that has all its calls under way.",
        ),
    ),
)

_ENDPOINTS: Final = Row(
    "Endpoints",
    (
        Panel(
            "Failing, without a success for longer than",
            (Query(shared("spine_endpoints_failing", "longer_than"), "{{longer_than}}"),),
            width=6,
        ),
        Panel("Disabled", (Query(shared("spine_endpoints_disabled"), "endpoints"),), width=6),
        Panel(
            "Held for disabled endpoints",
            (Query(shared("spine_queue_open", where='{cargo="delivery", state="held"}'), "deliveries"),),
            width=6,
        ),
        Panel("Dead letters", (Query(shared("spine_dead_letters"), "dead letters"),), width=6, red=1),
        Panel(
            "Deliveries follow a change of",
            (Query(shared("spine_endpoint_transitions"), "endpoints"),),
            width=8,
            text="Endpoints that were disabled, enabled or deleted and whose deliveries are still being moved, step by step.",
        ),
        Panel(
            "Results set apart",
            (Query(rate("spine_results_set_apart_total", "outcome"), "{{outcome}}"),),
            width=8,
            text="Results that Postgres refused to store. Reduced ones are recorded without the response.",
        ),
        Panel(
            "Steps put off",
            (Query(rate("spine_steps_put_off_total", "work"), "{{work}}"),),
            width=8,
            text="Steps of replays and of changed endpoints that failed and are repeated later.",
        ),
        Panel(
            "Jobs of products",
            (Query(rate("spine_jobs_total", "kind, outcome"), "{{kind}} {{outcome}}"),),
            width=12,
            text="Reminders, overdue tasks, SLA breaches, drafts of invoices and the like. A failed job is repeated later.",
        ),
        Panel(
            "Oldest due job",
            (Query(shared("spine_jobs_late_seconds"), "late"),),
            "s",
            width=12,
            red=60,
        ),
    ),
)

WEBHOOKS: Final = Board(
    uid="spine-webhooks",
    title="Spine: webhooks",
    text="Deliveries by product and event type, and the reasons for waiting deliveries.",
    rows=(_DELIVERIES, _ATTEMPTS, _PRECISION, _CAPACITY, _ENDPOINTS),
    variables=(Variable("product", _DELIVERED), Variable("event_type", _DELIVERED)),
)
