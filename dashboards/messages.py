"""The row of the overview board about messages to people and their providers."""

from typing import Final

from dashboards.panel import Panel, Query, Row, quantile, rate

MESSAGES: Final = Row(
    "Messages",
    (
        Panel(
            "Calls to providers",
            (
                Query(
                    rate("spine_message_attempts_total", "channel, provider, outcome"),
                    "{{channel}} {{provider}} {{outcome}}",
                ),
            ),
            "ops",
        ),
        Panel("Ended", (Query(rate("spine_messages_ended_total", "status"), "{{status}}"),), "ops"),
        Panel(
            "Provider call (p99)",
            (Query(quantile(0.99, "spine_provider_call_seconds", "channel, provider"), "{{channel}} {{provider}}"),),
            "s",
        ),
        Panel(
            "A step's wait",
            (
                Query(quantile(0.5, "spine_message_step_wait_seconds", "channel"), "{{channel}} p50"),
                Query(quantile(0.9, "spine_message_step_wait_seconds", "channel"), "{{channel}} p90"),
            ),
            "s",
            text="Time from the start of a step to its success or to the next step.",
        ),
        Panel(
            "Circuit breakers opened",
            (Query(rate("spine_breaker_openings_total", "channel, provider"), "{{channel}} {{provider}}"),),
            "ops",
        ),
        Panel(
            "From call to receipt (p90)",
            (Query(quantile(0.9, "spine_receipt_seconds", "channel, provider"), "{{channel}} {{provider}}"),),
            "s",
            text="Time from a call to the provider's report that the message was delivered.",
        ),
        Panel(
            "Callbacks of providers",
            (Query(rate("spine_provider_callbacks_total", "provider, outcome"), "{{provider}} {{outcome}}"),),
            "ops",
        ),
        Panel(
            "Possible duplicates",
            (
                Query(
                    "sum(rate(spine_messages_duplicate_possible_total[$__rate_interval]))"
                    " / sum(rate(spine_messages_ended_total[$__rate_interval]))",
                    "of the messages that ended",
                ),
            ),
            "percentunit",
            text="A fallback was taken while an earlier attempt could still arrive.",
        ),
        Panel(
            "Spend",
            (
                Query(
                    "sum by (channel, provider) (increase(spine_provider_cost_micros_total[1h])) / 1e6",
                    "{{channel}} {{provider}}",
                ),
            ),
            text="What the messages of an hour cost, in the currencies of the workspaces, where accounts have a price.",
        ),
    ),
)
