"""The periods of quotas."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from policies.quota_periods import period_end

TIMES = st.integers(0, 2_000_000_000).map(lambda s: datetime.fromtimestamp(s, UTC))


@given(TIMES)
def test_a_period_ends_at_the_next_midnight_of_its_kind(now: datetime) -> None:
    """A day ends within 24 hours at midnight, a month on a first; the end belongs to the next period."""
    day, month = period_end(now, "day"), period_end(now, "month")
    assert timedelta(0) < day - now <= timedelta(days=1)
    assert timedelta(0) < month - now <= timedelta(days=31)
    assert (day.hour, day.minute, day.second, day.microsecond, month.hour, month.day) == (0, 0, 0, 0, 0, 1)
    assert period_end(day, "day") == day + timedelta(days=1)
    assert period_end(month - timedelta(microseconds=1), "month") == month
