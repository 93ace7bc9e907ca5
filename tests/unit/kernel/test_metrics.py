"""Laws of the metrics: few label values, names that say their unit, old figures that never look new."""

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

FIGURES = BacklogStats(
    outbox_rows=3,
    outbox_oldest_age_s=0.5,
    queues={"delivery": QueueStats({"pending": 2, "held": 7}, due=1, leased=2, oldest_due_age_s=4.5)},
    parked=1,
    dead_letters=2,
    endpoints_failing={"5m": 2, "1h": 1},
    endpoints_disabled=1,
)


def value(name: str, **labels: str) -> float | None:
    """What a scrape would show."""
    return REGISTRY.get_sample_value(name, labels)


def test_own_types_keep_their_names_whatever_callers_invent() -> None:
    """The suite's types are labelled by family and name, even when callers' types have used up the room for others."""
    types = EventTypes(limit=1)
    types.declare(["message.created"])
    assert types.labels("order.paid") == ("custom", "order.paid")
    assert types.labels("order.lost") == ("custom", "other")
    assert types.labels("order.paid") == ("custom", "order.paid")
    assert types.labels("message.created") == ("message", "message.created")


@given(st.lists(st.from_regex(r"[a-z]{1,3}\.[a-z]{1,3}", fullmatch=True), max_size=60))
def test_callers_types_make_few_series_and_lose_no_count(sent: list[str]) -> None:
    """However many types there are, the series stay within the limit and `other`, and their sum is what was counted."""
    registry = CollectorRegistry()
    counter = ByType("counted_total", "for this test", EventTypes(limit=5), registry)
    for event_type in sent:
        counter(event_type).inc(2)
    [family] = registry.collect()
    assert len(family.samples) <= 6
    assert sum(sample.value for sample in family.samples) == 2 * len(sent)


def test_names_say_whose_they_are_and_in_what_unit() -> None:
    """Every name starts with spine_, durations are in seconds, counters end in _total, and each has a description."""
    for metric in REGISTRY.collect():
        if metric.name.startswith("process_"):
            continue
        assert re.fullmatch(r"spine_[a-z_]+", metric.name)
        assert metric.documentation
        if metric.type == "histogram":
            assert metric.name.endswith(("_seconds", "_rows"))
        assert not re.search(r"_(ms|millis|minutes|latency|duration)(_|$)", metric.name)


def test_a_scrape_can_be_read() -> None:
    """The exposition parses as Prometheus's text format and holds what was counted."""
    before = value("spine_idempotent_replays_total") or 0
    metrics.idempotent_replay()
    body, content_type = metrics.exposition()
    assert content_type.startswith("text/plain")
    families = {family.name: family for family in text_string_to_metric_families(body.decode())}
    [sample] = families["spine_idempotent_replays"].samples
    assert sample.value == before + 1


def test_requests_are_counted_by_template_and_known_method() -> None:
    """A made-up method and an answer that was never sent get one label value each."""
    labels = {"method": "other", "route": "/for/this/test", "status": "none"}
    for method in ("BREW", "WHEN"):
        metrics.http_request(method, "/for/this/test", 0, 0.02)
    assert value("spine_http_requests_total", **labels) == 2
    assert value("spine_http_request_seconds_count", method="other", route="/for/this/test") == 2


def test_refusals_and_pools_are_shown_as_given() -> None:
    """What is observed of limits, pools, the sender and the recorder is what a scrape shows."""
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


def test_a_state_without_rows_is_shown_as_none() -> None:
    """When the last row of a state is gone and the state is missing from the figures, its gauge falls to 0."""
    metrics.observe_queue(FIGURES)
    assert value("spine_queue_open", cargo="delivery", state="held") == 7
    emptied: dict[QueueName, QueueStats] = {"delivery": replace(FIGURES.queues["delivery"], open={"pending": 2})}
    metrics.observe_queue(replace(FIGURES, queues=emptied))
    assert value("spine_queue_open", cargo="delivery", state="held") == 0
    assert value("spine_queue_open", cargo="delivery", state="pending") == 2


def test_figures_that_cannot_be_read_are_shown_as_unknown() -> None:
    """With None every figure of the queues is NaN, and the time of the last reading stays where it was."""
    metrics.observe_queue(FIGURES)
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
