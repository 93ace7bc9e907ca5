"""Laws of the metrics: few label values, names that contain the unit, old values that never look current."""

import math
import re
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from spine.kernel import metrics
from spine.kernel.metrics import BacklogStats, PoolStats, QueueName, QueueStats
from spine.kernel.metrics.labels import ByType, EventTypes
from spine.kernel.metrics.registry import REGISTRY

STATS = BacklogStats(
    outbox_rows=3,
    outbox_oldest_age_s=0.5,
    queues={"delivery": QueueStats({"pending": 2, "held": 7}, due=1, leased=2, oldest_due_age_s=4.5)},
    parked=1,
    dead_letters=2,
    endpoints_failing={"5m": 2, "1h": 1},
    endpoints_disabled=1,
)


def value(name: str, **labels: str) -> float | None:
    """The value that a scrape returns."""
    return REGISTRY.get_sample_value(name, labels)


def test_declared_types_keep_their_names() -> None:
    """Declared types are labelled by product and name, even when custom types have used up the limit."""
    types = EventTypes(limit=1)
    types.declare(["message.created"])
    assert types.labels("order.paid") == ("custom", "order.paid")
    assert types.labels("order.lost") == ("custom", "other")
    assert types.labels("order.paid") == ("custom", "order.paid")
    assert types.labels("message.created") == ("message", "message.created")


@given(st.lists(st.from_regex(r"[a-z]{1,3}\.[a-z]{1,3}", fullmatch=True), max_size=60))
def test_custom_types_make_few_series_and_lose_no_count(sent: list[str]) -> None:
    """For any number of types, there are at most `limit` series and `other`, and their sum is the number of events."""
    registry = CollectorRegistry()
    counter = ByType("counted_total", "for this test", EventTypes(limit=5), registry)
    for event_type in sent:
        counter(event_type).inc(2)
    [family] = registry.collect()
    assert len(family.samples) <= 6
    assert sum(sample.value for sample in family.samples) == 2 * len(sent)


def test_names_have_a_prefix_and_a_unit() -> None:
    """Every name starts with spine_, durations are in seconds, and each metric has a description."""
    for metric in REGISTRY.collect():
        if metric.name.startswith("process_"):
            continue
        assert re.fullmatch(r"spine_[a-z_]+", metric.name)
        assert metric.documentation
        if metric.type == "histogram":
            assert metric.name.endswith(("_seconds", "_rows"))
        assert not re.search(r"_(ms|millis|minutes|latency|duration)(_|$)", metric.name)


def test_the_exposition_can_be_parsed() -> None:
    """The exposition is valid Prometheus text format and contains the counted value."""
    before = value("spine_idempotent_replays_total") or 0
    metrics.idempotent_replay()
    body, content_type = metrics.exposition()
    assert content_type.startswith("text/plain")
    families = {family.name: family for family in text_string_to_metric_families(body.decode())}
    [sample] = families["spine_idempotent_replays"].samples
    assert sample.value == before + 1


def test_requests_are_counted_by_template_and_known_method() -> None:
    """All unknown methods share one label value; a request without an answer has status `none`."""
    labels = {"method": "other", "route": "/for/this/test", "status": "none"}
    for method in ("BREW", "WHEN"):
        metrics.http_request(method, "/for/this/test", 0, 0.02)
    assert value("spine_http_requests_total", **labels) == 2
    assert value("spine_http_request_seconds_count", method="other", route="/for/this/test") == 2


def test_observed_values_are_exported() -> None:
    """A scrape returns the observed values of rate limits, pools, the sender and the recorder."""
    rows, first = value("spine_recorder_batch_rows_sum") or 0, value("spine_commit_to_first_byte_seconds_count") or 0
    refused = value("spine_rate_limited_total", limit="outbox") or 0
    metrics.rate_limited("outbox")
    metrics.observe_pool("for_this_test", PoolStats(size=4, in_use=3, limit=10, waiting=2))
    metrics.observe_sender(in_flight=5, waiting=6)
    metrics.recorded(20, 0.003)
    metrics.first_byte(0.012)
    assert value("spine_rate_limited_total", limit="outbox") == refused + 1
    assert value("spine_pool_connections", pool="for_this_test") == 4
    assert value("spine_pool_connections_in_use", pool="for_this_test") == 3
    assert value("spine_pool_connections_limit", pool="for_this_test") == 10
    assert value("spine_pool_waiting", pool="for_this_test") == 2
    assert value("spine_sender_in_flight") == 5
    assert value("spine_sender_waiting") == 6
    assert value("spine_recorder_batch_rows_sum") == rows + 20
    assert value("spine_commit_to_first_byte_seconds_count") == first + 1


def test_the_gauge_of_a_state_without_rows_is_zero() -> None:
    """If a state is missing from the statistics because it has no rows, its gauge is set to 0."""
    metrics.observe_queue(STATS)
    assert value("spine_queue_open", cargo="delivery", state="held") == 7
    emptied: dict[QueueName, QueueStats] = {"delivery": replace(STATS.queues["delivery"], open={"pending": 2})}
    metrics.observe_queue(replace(STATS, queues=emptied))
    assert value("spine_queue_open", cargo="delivery", state="held") == 0
    assert value("spine_queue_open", cargo="delivery", state="pending") == 2


def test_unreadable_statistics_are_nan() -> None:
    """With None every gauge of the backlog is NaN, and the time of the last reading does not change."""
    metrics.observe_queue(STATS)
    seen = value("spine_queue_observed_timestamp_seconds")
    metrics.observe_queue(None)
    for name, labels in [
        ("spine_outbox_rows", {}),
        ("spine_dead_letters", {}),
        ("spine_endpoints_failing", {"longer_than": "1h"}),
        ("spine_queue_oldest_due_age_seconds", {"cargo": "delivery"}),
    ]:
        shown = value(name, **labels)
        assert shown is not None
        assert math.isnan(shown)
    assert value("spine_queue_observed_timestamp_seconds") == seen
