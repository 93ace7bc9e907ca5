"""The arithmetic of service levels: what has run is neither lost nor counted twice, however often a ticket waits."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from policies.sla import SlaClock, age, due_at, remaining, resumed, started, stopped

START = datetime(2026, 11, 26, tzinfo=UTC)
STRETCHES = st.lists(st.integers(min_value=0, max_value=10**12), max_size=20)
"""Lengths in microseconds, of running and of standing still in turn."""
THRESHOLDS = st.integers(min_value=1, max_value=366 * 24 * 3600)


def after(stretches: list[int]) -> tuple[SlaClock, datetime, timedelta]:
    """Return the clock after these stretches, the time by then, and how long it ran in all."""
    clock, now, ran = started(START), START, timedelta()
    for n, stretch in enumerate(stretches):
        length = timedelta(microseconds=stretch)
        now += length
        if n % 2 == 0:
            ran += length
            clock = stopped(clock, now)
        else:
            clock = resumed(clock, now)
    return clock, now, ran


@given(STRETCHES)
def test_the_age_is_what_the_clock_ran(stretches: list[int]) -> None:
    """The age is the sum of the stretches in which the clock ran, to the microsecond."""
    clock, now, ran = after(stretches)
    assert age(clock, now) == ran


@given(STRETCHES, THRESHOLDS)
def test_it_is_due_when_the_age_reaches_the_threshold(stretches: list[int], threshold_s: int) -> None:
    """While it runs, the age at `due_at` is the threshold; while it stands still it is never due."""
    clock, now, _ = after(stretches)
    due = due_at(clock, threshold_s)
    if clock.running_since is None:
        assert due is None
    else:
        assert due is not None
        if due >= clock.running_since:
            assert age(clock, due) == timedelta(seconds=threshold_s)
        else:
            assert age(clock, now) > timedelta(seconds=threshold_s)


@given(STRETCHES, THRESHOLDS, st.integers(min_value=0, max_value=10**12))
def test_a_wait_moves_the_due_time_by_its_length(stretches: list[int], threshold_s: int, wait_us: int) -> None:
    """Pausing and resuming puts the due time off by exactly the time between; what remains is the same throughout."""
    clock, now, _ = after(stretches)
    clock = resumed(clock, now)
    before = due_at(clock, threshold_s)
    paused = stopped(clock, now)
    wait = timedelta(microseconds=wait_us)
    later = due_at(resumed(paused, now + wait), threshold_s)
    assert before is not None
    assert later == before + wait
    assert remaining(paused, threshold_s) == max(timedelta(), before - now)


@given(STRETCHES, THRESHOLDS, THRESHOLDS)
def test_another_threshold_moves_the_due_time_by_the_difference(stretches: list[int], one: int, two: int) -> None:
    """A change of priority keeps the age: the due time moves by the difference of the thresholds."""
    clock, now, _ = after(stretches)
    clock = resumed(clock, now)
    first, second = due_at(clock, one), due_at(clock, two)
    assert first is not None
    assert second is not None
    assert second - first == timedelta(seconds=two - one)


@given(STRETCHES)
def test_stopping_and_resuming_twice_is_as_once(stretches: list[int]) -> None:
    """A clock that stands still stays as it is when stopped again, and one that runs when resumed again."""
    clock, now, _ = after(stretches)
    later = now + timedelta(hours=1)
    still = stopped(clock, now)
    assert stopped(still, later) == still
    running = resumed(still, now)
    assert resumed(running, later) == running


def test_time_never_runs_backwards() -> None:
    """A transaction that began before the clock was started does not make it younger than nothing."""
    clock = started(START)
    assert age(clock, START - timedelta(seconds=1)) == timedelta()
    assert stopped(clock, START - timedelta(seconds=1)) == SlaClock()


def test_without_a_policy_nothing_is_due() -> None:
    """A ticket without a threshold has neither a due time nor a rest, and its clock runs all the same."""
    clock = started(START)
    assert due_at(clock, None) is None
    assert remaining(stopped(clock, START), None) is None
    assert age(clock, START + timedelta(hours=1)) == timedelta(hours=1)
