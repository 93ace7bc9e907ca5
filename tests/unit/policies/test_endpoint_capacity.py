"""How a cap is split over the workers without a word between them."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.endpoint_capacity import DEPTH_MAX, depth, rate_share, share

WORKERS = st.sets(st.text(min_size=1, max_size=8), min_size=1, max_size=12).map(sorted)
ENDPOINT = st.text(max_size=20)
CAP = st.integers(1, 300)
RATE = st.none() | st.floats(0.01, 1000)


@given(cap=CAP, workers=WORKERS, endpoint=ENDPOINT, rate=RATE)
def test_shares_add_up_to_the_cap(cap: int, workers: list[str], endpoint: str, rate: float | None) -> None:
    """Over the live workers the parts sum to the cap exactly: never a call too many, none unused."""
    assert sum(share(cap, workers, me, endpoint, rate) for me in workers) == cap


@given(cap=CAP, workers=WORKERS, endpoint=ENDPOINT)
def test_shares_are_even(cap: int, workers: list[str], endpoint: str) -> None:
    """No worker has two calls more than another."""
    shares = [share(cap, workers, me, endpoint) for me in workers]
    assert max(shares) - min(shares) <= 1


@given(cap=CAP, workers=WORKERS, endpoint=ENDPOINT, rate=RATE, data=st.data())
def test_every_worker_computes_the_same_split(
    cap: int, workers: list[str], endpoint: str, rate: float | None, data: st.DataObject
) -> None:
    """The order in which a worker learnt of the others does not matter."""
    shuffled = data.draw(st.permutations(workers))
    assert all(share(cap, workers, me, endpoint, rate) == share(cap, shuffled, me, endpoint, rate) for me in workers)


@given(cap=CAP, workers=WORKERS, endpoint=ENDPOINT, rate=st.floats(0.01, 1000))
def test_rates_add_up_and_go_where_the_calls_are(cap: int, workers: list[str], endpoint: str, rate: float) -> None:
    """The rate is used up, only by workers that may call, and none of several is given less than one call a second."""
    rates = {me: rate_share(rate, cap, workers, me, endpoint) for me in workers}
    assert sum(rates.values()) == pytest.approx(rate)
    assert all((rates[me] > 0) == (share(cap, workers, me, endpoint, rate) > 0) for me in workers)
    positive = [part for part in rates.values() if part > 0]
    assert len(positive) == 1 or min(positive) >= 1


@given(workers=WORKERS.filter(lambda found: len(found) > 1), endpoint=ENDPOINT)
def test_a_lane_moves_only_when_its_worker_leaves(workers: list[str], endpoint: str) -> None:
    """With a cap of one, the death of another worker does not move the lane (rendezvous hashing)."""
    [holder] = [me for me in workers if share(1, workers, me, endpoint)]
    for gone in workers:
        if gone != holder:
            assert share(1, [me for me in workers if me != gone], holder, endpoint) == 1


def test_single_lanes_spread_over_the_workers() -> None:
    """Endpoints with a cap of one do not all land on the same worker."""
    workers = [f"worker-{n}" for n in range(4)]
    held = Counter(me for n in range(400) for me in workers if share(1, workers, me, f"we_{n}"))
    assert set(held) == set(workers)
    assert min(held.values()) > 50


@pytest.mark.parametrize("cap", [0, -1])
def test_no_cap_no_lane(cap: int) -> None:
    """A cap of nothing is nothing."""
    assert share(cap, ["a"], "a", "we_1") == 0


def test_a_worker_outside_the_list_has_no_part() -> None:
    """A worker that the others do not count on takes nothing."""
    assert share(20, ["a", "b"], "c", "we_1") == 0
    assert rate_share(5, 20, ["a", "b"], "c", "we_1") == 0
    assert share(20, [], "c", "we_1") == 0


def test_zero_rate_is_a_closed_lane() -> None:
    """A rate of nothing closes the lane."""
    assert share(20, ["a"], "a", "we_1", 0) == 0


@given(part=st.integers(1, 500), latency_s=st.none() | st.floats(0, 60))
def test_depth_holds_two_calls_each_and_two_thousand_at_most(part: int, latency_s: float | None) -> None:
    """However slow or fast the receiver, between 2 x share and 2,000 deliveries are held."""
    assert 2 * part <= depth(part, latency_s) <= DEPTH_MAX == 2000


@pytest.mark.parametrize(
    ("part", "latency_s", "rate_per_s", "held"),
    [
        (20, 0.1, None, 200),
        (20, 0.003, None, 2000),
        (20, 15.0, None, 40),
        (20, None, None, 40),
        (20, 0.0, None, 40),
        (20, 5e-324, None, 2000),
        (20, 0.01, 5.0, 5),
        (1, 0.5, 0.2, 1),
        (1500, 60.0, None, 2000),
        (0, 0.001, None, 0),
    ],
)
def test_depth_is_what_one_second_can_use(
    part: int, latency_s: float | None, rate_per_s: float | None, held: int
) -> None:
    """Little's law over a second, bounded by a rate; nothing for a worker without a part."""
    assert depth(part, latency_s, rate_per_s) == held
