"""Laws of disabling an endpoint automatically."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from policies.auto_disable import AutoDisable, failing_since, should_disable

START = datetime(2026, 11, 1, tzinfo=UTC)
FIVE_DAYS = timedelta(days=5)


def test_five_days_of_failures_disable() -> None:
    """An endpoint is disabled after exactly five days of failures, and not a microsecond earlier."""
    assert should_disable(AutoDisable(), START, START + FIVE_DAYS)
    assert not should_disable(AutoDisable(), START, START + FIVE_DAYS - timedelta(microseconds=1))


def test_a_healthy_endpoint_stays_enabled() -> None:
    """Without a failure since the last success an endpoint is never disabled."""
    assert not should_disable(AutoDisable(), None, START + timedelta(days=1000))


def test_the_period_is_a_parameter() -> None:
    """The rule contains the period."""
    assert should_disable(AutoDisable(after_s=60), START, START + timedelta(minutes=1))


@given(st.lists(st.tuples(st.integers(0, 10**6), st.booleans()), min_size=1, max_size=20))
def test_failing_since_is_the_first_failure_after_the_last_success(attempts: list[tuple[int, bool]]) -> None:
    """A success resets the period of failures; more failures keep its start."""
    attempts = sorted(attempts)
    since = None
    for offset_s, delivered in attempts:
        since = failing_since(since, delivered, START + timedelta(seconds=offset_s))
    run: list[int] = []
    for offset_s, delivered in attempts:
        run = [] if delivered else [*run, offset_s]
    assert since == (START + timedelta(seconds=run[0]) if run else None)


def test_failures_recorded_out_of_order_keep_the_earliest() -> None:
    """An attempt that ended earlier and is recorded later moves the start back; the start never moves forward."""
    later = failing_since(None, False, START + timedelta(seconds=9))
    assert failing_since(later, False, START) == START
    assert failing_since(START, False, START + timedelta(seconds=9)) == START
