"""The arithmetic of the benchmarks: what their figures rest on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.reconciliation import Account, AccountError, Books, settle
from bench.results import PROMISES, Promise
from bench.stats import Latency, Spread, per_second, percentile, ratios, steady_rate

values = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200)


@given(values, st.floats(1, 100))
def test_percentile_is_a_value_that_enough_others_do_not_exceed(found: list[float], percent: float) -> None:
    """A percentile is one of the values, and at least that part of them lies at or below it."""
    at = percentile(found, percent)
    assert at in found
    assert sum(value <= at for value in found) >= len(found) * percent / 100 - 1e-9


def test_percentile_by_nearest_rank() -> None:
    """Of a hundred values the 99th percentile is the 99th smallest, not an interpolation."""
    assert percentile([float(n) for n in range(1, 101)], 99) == 99
    assert percentile([7.0], 99) == 7.0
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_ratios_pair_rounds() -> None:
    """Each round is divided by its neighbour, so that a slow spell of the machine falls out."""
    spread = ratios([10.0, 5.0, 2.0], [20.0, 10.0, 4.0])
    assert (spread.median, spread.low, spread.high, spread.rounds) == (0.5, 0.5, 0.5, 3)
    with pytest.raises(ValueError, match="shorter"):
        ratios([1.0, 2.0], [1.0])


def test_spread_keeps_the_extremes() -> None:
    """The error bars are the worst and the best round."""
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0, 3)


def test_latency_is_in_milliseconds() -> None:
    """Seconds in, milliseconds out, the largest one kept."""
    latency = Latency.of([0.001, 0.002, 0.1])
    assert (latency.count, latency.p50_ms, latency.max_ms) == (3, 2.0, 100.0)


def test_rate_over_time_loses_nothing() -> None:
    """The steps of a rate add up to everything that happened, empty steps included."""
    times = [0.0, 0.1, 0.9, 2.6]
    points = per_second(times, 0.5)
    assert sum(rate * 0.5 for _, rate in points) == len(times)
    assert [at for at, _ in points] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    assert per_second([], 0.5) == []


def test_steady_rate_leaves_out_start_and_tail() -> None:
    """A slow first and last tenth do not count."""
    even = [10 + n / 100 for n in range(100)]
    assert steady_rate(even) == pytest.approx(100)
    assert steady_rate([0.0, *even[1:-1], 100.0]) == pytest.approx(100)


def _books(**rows: int) -> Books:
    return Books(**({"delivered": 0, "dead": 0, "open": 0, "outbox": 0, "events": 0} | rows))


def test_account_closes() -> None:
    """Accepted events times their endpoints are delivered, dead or open; what is in the outbox is open."""
    account = settle("run", _books(delivered=20, dead=3, open=5, outbox=1, events=15), 15, 2, received=24, duplicates=4)
    assert account.require() == Account("run", 30, 20, 3, 7, 24, 4)
    assert account.lost == 0


def test_lost_delivery_is_an_error() -> None:
    """A delivery in no state at all fails the run."""
    with pytest.raises(AccountError, match="1 lost"):
        settle("run", _books(delivered=9, events=10), 10, 1, received=9, duplicates=0).require()


def test_delivered_must_have_been_received() -> None:
    """A ledger that says delivered where no receiver saw it fails the run."""
    with pytest.raises(AccountError, match="2 delivered and not received"):
        settle("run", _books(delivered=10, events=10), 10, 1, received=8, duplicates=0).require()


def test_accepted_events_must_be_in_the_database() -> None:
    """An event that was answered 201 and is not there fails the run."""
    with pytest.raises(AccountError, match="10 events were accepted and 9"):
        settle("run", _books(delivered=9, events=9), 10, 1, received=9, duplicates=0)


def test_promises_have_a_side() -> None:
    """A ratio must reach its bound, a time or a count must not pass it."""
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
