"""Circuit breakers: when they open, what they ignore, and how they close (notifications.md)."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.breaker import Breaker, Limits, Outcome, Verdict, after, verdict_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIMITS = Limits()
VERDICTS: list[Verdict] = ["success", "failure", "connect", "config", "neutral", "alive"]


def calls(verdict: Verdict, count: int = 1, *, generation: int = 0, slow: bool = False) -> list[Outcome]:
    """As many calls of one generation that came to this."""
    return [Outcome(verdict, slow, generation)] * count


def judged(breaker: Breaker, outcomes: list[Outcome], now: datetime = NOW) -> Breaker:
    """The breaker after these calls, without jitter."""
    return after(breaker, outcomes, now, LIMITS, 0.0)


@pytest.mark.parametrize(
    ("outcomes", "reason"),
    [
        (calls("success", 10) + calls("failure", 10), "failure_rate"),
        (calls("connect", 5), "connect_failures"),
        (calls("success", 20, slow=True), "slow_calls"),
        (calls("success", 11) + calls("failure", 9), None),
        (calls("failure", 19), None),
        (calls("connect", 4) + calls("success") + calls("connect", 4), None),
        (calls("alive", 1000), None),
        (calls("neutral", 1000), None),
    ],
)
def test_it_opens_by_rate_and_by_refused_connections(outcomes: list[Outcome], reason: str | None) -> None:
    """Half of 20 calls failed, 5 refused connections in a row, or 80 % slow; 1,000 invalid numbers keep it closed (case 13)."""
    breaker = judged(Breaker(), outcomes)
    assert (breaker.state, breaker.reason) == (("open", reason) if reason else ("closed", None))
    assert breaker.opened_until == (NOW + timedelta(seconds=30) if reason else None)


def test_old_calls_leave_the_window() -> None:
    """Failures of more than 30 s ago do not open it."""
    breaker = judged(Breaker(), calls("failure", 19))
    later = NOW + timedelta(seconds=LIMITS.window_s)
    assert judged(breaker, calls("failure"), later).state == "closed"
    assert judged(breaker, calls("failure"), later - timedelta(seconds=1)).state == "open"


def test_late_results_are_ignored() -> None:
    """A call that started under an earlier generation neither opens nor closes it (case 11)."""
    opened = judged(Breaker(), calls("connect", 5))
    assert judged(opened, calls("success", 50)) == opened
    probing = Breaker("half_open", generation=2)
    assert judged(probing, calls("failure", generation=1) + calls("config", generation=1)) == probing


def test_probes_close_it_or_open_it_for_twice_as_long() -> None:
    """Three probes that succeed close it; one that fails opens it for twice the time, at most 10 minutes."""
    probing = Breaker("half_open", generation=5, openings=1)
    once = judged(probing, calls("alive", generation=5))
    assert (once.state, once.successes) == ("half_open", 1)
    closed = judged(once, calls("success", 2, generation=5))
    assert (closed.state, closed.generation, closed.openings) == ("closed", 6, 0)
    opened = judged(once, calls("failure", generation=5))
    assert (opened.state, opened.opened_until, opened.openings) == ("open", NOW + timedelta(seconds=60), 2)
    long = judged(Breaker("half_open", openings=50), calls("connect"))
    assert long.opened_until == NOW + timedelta(seconds=600)


def test_a_wrong_configuration_opens_it_without_an_end() -> None:
    """Refused credentials open it at once, and no probe closes it (case 29)."""
    breaker = judged(Breaker(), calls("config"))
    assert (breaker.state, breaker.opened_until) == ("misconfigured", None)
    assert judged(breaker, calls("success", generation=1)) == breaker


@pytest.mark.parametrize(
    ("outcome", "failure", "verdict"),
    [
        ("accepted", None, "success"), ("unknown", "timeout", "failure"), ("rejected", "connect", "connect"),
        ("rejected", "transient", "failure"), ("rejected", "rate", "neutral"), ("rejected", "recipient", "alive"),
        ("rejected", "policy", "neutral"), ("rejected", "content", "neutral"), ("rejected", "config", "config"),
        ("rejected", "ours", "neutral"),
    ],
)  # fmt: skip
def test_each_class_has_its_verdict(outcome: str, failure: str | None, verdict: Verdict) -> None:
    """The table of classes in notifications.md: only the provider's own faults count."""
    assert verdict_of(outcome, failure) == verdict


@given(st.lists(st.tuples(st.sampled_from(VERDICTS), st.booleans(), st.integers(0, 3), st.integers(0, 20))))
def test_any_calls_leave_it_sound(given_calls: list[tuple[Verdict, bool, int, int]]) -> None:
    """Generations only grow, an opening has its end and nothing else has one, and the window stays within its length."""
    breaker, now = Breaker(), NOW
    for verdict, slow, generation, passed_s in given_calls:
        now += timedelta(seconds=passed_s)
        before = breaker
        breaker = judged(breaker, [Outcome(verdict, slow, generation)], now)
        assert breaker.generation - before.generation == (breaker.state != before.state)
        assert (breaker.opened_until is not None) == (breaker.state == "open")
        assert all(now.timestamp() - LIMITS.window_s < one.second <= now.timestamp() for one in breaker.window) or (
            breaker.window == before.window
        )
        assert len(breaker.window) <= LIMITS.window_s
