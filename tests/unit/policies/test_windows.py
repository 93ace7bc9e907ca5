"""Laws of quiet hours, also with clock changes, and of the Indian hours for promotional SMS."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from policies.windows import QuietHours, dlt_window_closed, quiet_until

NIGHT = QuietHours(time(21), time(8), "Asia/Kolkata")
BERLIN = ZoneInfo("Europe/Berlin")


def ist(hour: int, minute: int = 0, day: int = 3) -> datetime:
    """A local time in India."""
    return datetime(2026, 11, day, hour, minute, tzinfo=ZoneInfo("Asia/Kolkata"))


def test_quiet_hours_may_include_midnight() -> None:
    """If the end is earlier than the start, the quiet hours end on the next day."""
    assert quiet_until(NIGHT, ist(22)) == ist(8, day=4)
    assert quiet_until(NIGHT, ist(3)) == ist(8)
    assert quiet_until(NIGHT, ist(12)) is None


def test_the_end_is_exclusive() -> None:
    """The end of quiet hours is the first time at which a message may be sent (failure case 22)."""
    assert quiet_until(NIGHT, ist(21)) == ist(8, day=4)
    assert quiet_until(NIGHT, ist(8)) is None
    assert quiet_until(NIGHT, ist(8) - timedelta(microseconds=1)) == ist(8)


def test_a_clock_change_alters_the_length_of_quiet_hours() -> None:
    """23:00 to 07:00 local time are seven hours at the change in March, and nine hours in October."""
    quiet = QuietHours(time(23), time(7), "Europe/Berlin")
    march = datetime(2026, 3, 28, 23, tzinfo=BERLIN)
    october = datetime(2026, 10, 24, 23, tzinfo=BERLIN)
    spring, autumn = quiet_until(quiet, march), quiet_until(quiet, october)
    assert spring is not None
    assert autumn is not None
    assert spring - march.astimezone(UTC) == timedelta(hours=7)
    assert autumn - october.astimezone(UTC) == timedelta(hours=9)


def test_an_end_that_a_clock_change_skips_is_the_change() -> None:
    """02:30 does not exist in that night, so the quiet hours end at the change, at 01:00 UTC."""
    quiet = QuietHours(time(23), time(2, 30), "Europe/Berlin")
    assert quiet_until(quiet, datetime(2026, 3, 29, 0, 30, tzinfo=UTC)) == datetime(2026, 3, 29, 1, tzinfo=UTC)


@given(st.times(), st.times(), st.integers(0, 366 * 24 * 3600))
def test_the_returned_end_is_not_quiet(start: time, end: time, after_s: int) -> None:
    """The returned end is in the future, and is not part of the quiet hours."""
    if start == end:
        return
    now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=after_s)
    quiet = QuietHours(start, end, "America/New_York")
    until = quiet_until(quiet, now)
    if until is not None:
        assert now < until
        assert quiet_until(quiet, until) is None


def test_promotional_sms_to_india_have_a_window() -> None:
    """At 21:05 IST a promotional SMS to India is held, and any other message is not (failure case 23)."""
    assert dlt_window_closed("sms", "+919812345678", "promotional", ist(21, 5))
    assert not dlt_window_closed("sms", "+919812345678", "promotional", ist(20, 59))
    assert not dlt_window_closed("sms", "+919812345678", "transactional", ist(21, 5))
    assert not dlt_window_closed("sms", "+4915112345678", "promotional", ist(21, 5))
    assert not dlt_window_closed("whatsapp", "+919812345678", "promotional", ist(21, 5))
