"""Laws of splitting an endpoint's cap over the workers without communication."""

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
    """The shares of the live workers add up to the cap exactly."""
    assert sum(share(cap, workers, me, endpoint, rate) for me in workers) == cap


@given(cap=CAP, workers=WORKERS, endpoint=ENDPOINT)
def test_shares_are_even(cap: int, workers: list[str], endpoint: str) -> None:
    """The shares of two workers differ by at most one call."""
    shares = [share(cap, workers, me, endpoint) for me in workers]
    assert max(shares) - min(shares) <= 1


@given(cap=CAP, workers=WORKERS, endpoint=ENDPOINT, rate=RATE, data=st.data())
def test_every_worker_computes_the_same_split(
    cap: int, workers: list[str], endpoint: str, rate: float | None, data: st.DataObject
) -> None:
    """The order of the list of workers does not matter."""
    shuffled = data.draw(st.permutations(workers))
    assert all(share(cap, workers, me, endpoint, rate) == share(cap, shuffled, me, endpoint, rate) for me in workers)


@given(cap=CAP, workers=WORKERS, endpoint=ENDPOINT, rate=st.floats(0.01, 1000))
def test_rate_shares_add_up_and_follow_the_cap_shares(cap: int, workers: list[str], endpoint: str, rate: float) -> None:
    """Rate shares add up to the rate, only workers with a share have one, and several shares are at least 1 call/s each."""
    rates = {me: rate_share(rate, cap, workers, me, endpoint) for me in workers}
    assert sum(rates.values()) == pytest.approx(rate)
    assert all((rates[me] > 0) == (share(cap, workers, me, endpoint, rate) > 0) for me in workers)
    positive = [part for part in rates.values() if part > 0]
    assert len(positive) == 1 or min(positive) >= 1


@given(workers=WORKERS.filter(lambda found: len(found) > 1), endpoint=ENDPOINT)
def test_an_endpoint_moves_only_when_its_worker_leaves(workers: list[str], endpoint: str) -> None:
    """With a cap of one, the death of another worker does not move the endpoint (rendezvous hashing)."""
    [holder] = [me for me in workers if share(1, workers, me, endpoint)]
    for gone in workers:
        if gone != holder:
            assert share(1, [me for me in workers if me != gone], holder, endpoint) == 1


def test_endpoints_spread_over_the_workers() -> None:
    """Endpoints with a cap of one are spread over all workers."""
    workers = [f"worker-{n}" for n in range(4)]
    held = Counter(me for n in range(400) for me in workers if share(1, workers, me, f"we_{n}"))
    assert set(held) == set(workers)
    assert min(held.values()) > 50


@pytest.mark.parametrize(
    ("cap", "workers", "me", "rate_per_s"),
    [(0, "a", "a", None), (-1, "a", "a", None), (20, "ab", "c", None), (20, "", "c", None), (20, "a", "a", 0.0)],
)
def test_no_share(cap: int, workers: str, me: str, rate_per_s: float | None) -> None:
    """Without a cap, outside the list of workers, or with a rate of zero, a worker has no share."""
    assert share(cap, list(workers), me, "we_1", rate_per_s) == 0
    assert rate_share(5 if rate_per_s is None else rate_per_s, cap, list(workers), me, "we_1") == 0


@given(part=st.integers(1, 500), latency_s=st.none() | st.floats(0, 60))
def test_depth_is_between_two_per_call_and_2000(part: int, latency_s: float | None) -> None:
    """For any latency, a worker holds between 2 x share and 2,000 deliveries."""
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
def test_depth_is_the_work_of_one_second(
    part: int, latency_s: float | None, rate_per_s: float | None, held: int
) -> None:
    """Little's law over one second, bounded by the rate; zero for a worker without a share."""
    assert depth(part, latency_s, rate_per_s) == held
