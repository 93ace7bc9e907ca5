"""When people are reminded."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from policies.reminders import Reminder, next_reminder

NOW = datetime(2027, 1, 1, 12, tzinfo=UTC)
minutes = st.lists(st.integers(1, 60 * 24 * 60), max_size=5)


def test_the_usual_reminders() -> None:
    """Three days ahead: a day before. Five hours ahead: an hour before. Half an hour ahead: not at all."""
    usual = (1440, 60)
    assert next_reminder(NOW + timedelta(days=3), usual, NOW) == Reminder(NOW + timedelta(days=2), 1440)
    assert next_reminder(NOW + timedelta(hours=5), usual, NOW) == Reminder(NOW + timedelta(hours=4), 60)
    assert next_reminder(NOW + timedelta(minutes=30), usual, NOW) is None
    assert next_reminder(NOW + timedelta(minutes=60), usual, NOW) is None
    assert next_reminder(NOW - timedelta(days=1), usual, NOW) is None


@given(minutes, st.integers(-10_000, 100_000))
def test_a_reminder_is_the_earliest_that_is_to_come(before: list[int], ahead_min: int) -> None:
    """It lies after now and before the start, it is one of the list, and none of the list lies between now and it."""
    begins_at = NOW + timedelta(minutes=ahead_min)
    found = next_reminder(begins_at, before, NOW)
    later = [begins_at - timedelta(minutes=each) for each in before if begins_at - timedelta(minutes=each) > NOW]
    if found is None:
        assert later == []
    else:
        assert found.due_at == min(later)
        assert found.minutes_before in before
        assert NOW < found.due_at < begins_at


@given(minutes, st.integers(1, 100_000))
def test_each_reminder_comes_once(before: list[int], ahead_min: int) -> None:
    """Asked again at each reminder's time for the shorter ones, it gives each that was to come once, in their order."""
    begins_at = NOW + timedelta(minutes=ahead_min)
    now, left, given_out = NOW, sorted(set(before)), []
    while (found := next_reminder(begins_at, left, now)) is not None:
        given_out.append(found.minutes_before)
        now, left = found.due_at, [each for each in left if each < found.minutes_before]
    assert given_out == sorted({each for each in before if each < ahead_min}, reverse=True)
