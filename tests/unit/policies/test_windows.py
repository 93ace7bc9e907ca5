"""Laws of quiet hours, in zones whose clocks change, and of the hours that Indian rules leave for promotion."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from policies.windows import QuietHours, dlt_window_closed, quiet_until

NIGHT = QuietHours(time(21), time(8), "Asia/Kolkata")
BERLIN = ZoneInfo("Europe/Berlin")


def ist(hour: int, minute: int = 0, day: int = 3) -> datetime:
    """A wall-clock time in India."""
    return datetime(2026, 11, day, hour, minute, tzinfo=ZoneInfo("Asia/Kolkata"))


def test_the_night_goes_over_midnight() -> None:
    """Hours that end earlier than they begin last into the next day."""
    assert quiet_until(NIGHT, ist(22)) == ist(8, day=4)
    assert quiet_until(NIGHT, ist(3)) == ist(8)
    assert quiet_until(NIGHT, ist(12)) is None


def test_the_very_end_is_not_quiet_any_more() -> None:
    """A window's end is the first moment to send (failure case 22)."""
    assert quiet_until(NIGHT, ist(21)) == ist(8, day=4)
    assert quiet_until(NIGHT, ist(8)) is None
    assert quiet_until(NIGHT, ist(8) - timedelta(microseconds=1)) == ist(8)


def test_a_night_in_which_the_clocks_change_has_another_length() -> None:
    """From 23:00 to 07:00 it is seven hours in March and nine in October, by the wall clock both times."""
    quiet = QuietHours(time(23), time(7), "Europe/Berlin")
    march = datetime(2026, 3, 28, 23, tzinfo=BERLIN)
    october = datetime(2026, 10, 24, 23, tzinfo=BERLIN)
    spring, autumn = quiet_until(quiet, march), quiet_until(quiet, october)
    assert spring is not None
    assert autumn is not None
    assert spring - march.astimezone(UTC) == timedelta(hours=7)
    assert autumn - october.astimezone(UTC) == timedelta(hours=9)


def test_an_end_that_the_clocks_jump_over_is_the_jump() -> None:
    """02:30 does not exist on that night: the quiet hours end when the clocks jump, at 01:00 UTC."""
    quiet = QuietHours(time(23), time(2, 30), "Europe/Berlin")
    assert quiet_until(quiet, datetime(2026, 3, 29, 0, 30, tzinfo=UTC)) == datetime(2026, 3, 29, 1, tzinfo=UTC)


@given(st.times(), st.times(), st.integers(0, 366 * 24 * 3600))
def test_after_the_end_it_is_never_quiet(start: time, end: time, after_s: int) -> None:
    """The end that is told lies ahead, and no longer belongs to the quiet hours."""
    if start == end:
        return
    now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=after_s)
    quiet = QuietHours(start, end, "America/New_York")
    until = quiet_until(quiet, now)
    if until is not None:
        assert now < until
        assert quiet_until(quiet, until) is None


def test_promotion_to_indian_numbers_has_its_hours() -> None:
    """At 21:05 IST a promotional SMS is held back before it is sent, and an ordinary one is not (failure case 23)."""
    assert dlt_window_closed("sms", "+919812345678", "promotional", ist(21, 5))
    assert not dlt_window_closed("sms", "+919812345678", "promotional", ist(20, 59))
    assert not dlt_window_closed("sms", "+919812345678", "transactional", ist(21, 5))
    assert not dlt_window_closed("sms", "+4915112345678", "promotional", ist(21, 5))
    assert not dlt_window_closed("whatsapp", "+919812345678", "promotional", ist(21, 5))
