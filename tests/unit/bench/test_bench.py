"""Statistics and reconciliation of the benchmarks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.reconciliation import DeliveryCounts, Reconciliation, ReconciliationError, reconcile
from bench.results import PROMISES, Promise
from bench.stats import Latency, Spread, per_second, percentile, ratios, steady_rate

values = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200)


@given(values, st.floats(1, 100))
def test_percentile_is_a_value_of_the_right_rank(found: list[float], percent: float) -> None:
    """A percentile is one of the values, and at least that percentage of the values is not larger."""
    at = percentile(found, percent)
    assert at in found
    assert sum(value <= at for value in found) >= len(found) * percent / 100 - 1e-9


def test_percentile_by_nearest_rank() -> None:
    """The 99th percentile of a hundred values is the 99th smallest, not an interpolation."""
    assert percentile([float(n) for n in range(1, 101)], 99) == 99
    assert percentile([7.0], 99) == 7.0
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_ratios_pair_rounds() -> None:
    """Each round is divided by its neighbour. A different number of rounds is an error."""
    spread = ratios([10.0, 5.0, 2.0], [20.0, 10.0, 4.0])
    assert (spread.median, spread.low, spread.high, spread.rounds) == (0.5, 0.5, 0.5, 3)
    with pytest.raises(ValueError, match="shorter"):
        ratios([1.0, 2.0], [1.0])


def test_spread_keeps_the_extremes() -> None:
    """The spread has the minimum and the maximum of the rounds."""
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0, 3)


def test_latency_is_in_milliseconds() -> None:
    """Seconds are converted to milliseconds, and the maximum is exact."""
    latency = Latency.of([0.001, 0.002, 0.1])
    assert (latency.count, latency.p50_ms, latency.max_ms) == (3, 2.0, 100.0)


def test_rate_over_time_loses_nothing() -> None:
    """The steps of a rate add up to all events, including empty steps."""
    times = [0.0, 0.1, 0.9, 2.6]
    points = per_second(times, 0.5)
    assert sum(rate * 0.5 for _, rate in points) == len(times)
    assert [at for at, _ in points] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    assert per_second([], 0.5) == []


def test_steady_rate_leaves_out_start_and_tail() -> None:
    """The first and the last tenth of a run do not count."""
    even = [10 + n / 100 for n in range(100)]
    assert steady_rate(even) == pytest.approx(100)
    assert steady_rate([0.0, *even[1:-1], 100.0]) == pytest.approx(100)


def _counts(**rows: int) -> DeliveryCounts:
    return DeliveryCounts(**({"delivered": 0, "dead": 0, "open": 0, "outbox": 0, "events": 0} | rows))


def test_accepted_deliveries_have_a_state() -> None:
    """Accepted events times their endpoints are delivered, dead or open. Events in the outbox are open."""
    reconciliation = reconcile(
        "run", _counts(delivered=20, dead=3, open=5, outbox=1, events=15), 15, 2, received=24, duplicates=4
    )
    assert reconciliation.require() == Reconciliation("run", 30, 20, 3, 7, 24, 4)
    assert reconciliation.lost == 0


def test_lost_delivery_is_an_error() -> None:
    """A delivery without a state fails the run."""
    with pytest.raises(ReconciliationError, match="1 lost"):
        reconcile("run", _counts(delivered=9, events=10), 10, 1, received=9, duplicates=0).require()


def test_delivered_must_have_been_received() -> None:
    """A delivered delivery that no receiver received fails the run."""
    with pytest.raises(ReconciliationError, match="2 delivered and not received"):
        reconcile("run", _counts(delivered=10, events=10), 10, 1, received=8, duplicates=0).require()


def test_accepted_events_must_be_in_the_database() -> None:
    """An accepted event that is not in the database fails the run."""
    with pytest.raises(ReconciliationError, match="10 events were accepted and 9"):
        reconcile("run", _counts(delivered=9, events=9), 10, 1, received=9, duplicates=0)


def test_promises_are_minimums_or_maximums() -> None:
    """A ratio must be at least its bound, a time or a count at most its bound."""
    assert Promise(0.4, True, "").holds(0.4)
    assert not Promise(0.4, True, "").holds(0.39)
    assert Promise(50, False, "").holds(50)
    assert not Promise(50, False, "").holds(50.1)
    assert {name for name, promise in PROMISES.items() if promise.at_least} == {
        "delivered_ratio",
        "two_workers_ratio",
        "accept_ratio",
        "accept_batch_ratio",
        "backlog_ratio",
    }
