"""Laws of the retry schedule and of Retry-After."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.retry import MAX_ATTEMPTS, RETRY_AFTER_CAP_S, SCHEDULE_S, next_attempt_at, parse_retry_after

NOW = datetime(2026, 11, 21, 2, 0, 0, 123456, tzinfo=UTC)
SECONDS = st.none() | st.floats(min_value=0, max_value=10**9)


def test_the_schedule_is_the_promised_one() -> None:
    """Seven waits, 9,381 s in all, so eight attempts (X2)."""
    assert SCHEDULE_S == (1, 4, 16, 60, 300, 1800, 7200)
    assert sum(SCHEDULE_S) == 9381
    assert MAX_ATTEMPTS == 8


@pytest.mark.parametrize(("failures", "wait_s"), list(enumerate(SCHEDULE_S, start=1)))
def test_wait_counts_from_the_end_of_the_attempt_without_jitter(failures: int, wait_s: int) -> None:
    """After failure n the next attempt is due exactly SCHEDULE_S[n-1] seconds after the end of the attempt."""
    assert next_attempt_at(failures, NOW, None) == NOW + timedelta(seconds=wait_s)


@pytest.mark.parametrize("failures", [8, 9, 100])
def test_eighth_failure_is_the_last(failures: int) -> None:
    """There is no attempt after the eighth failure, also with a Retry-After."""
    assert next_attempt_at(failures, NOW, None) is None
    assert next_attempt_at(failures, NOW, 60.0) is None


@pytest.mark.parametrize("failures", [0, -1])
def test_failures_count_from_one(failures: int) -> None:
    """A count of failures below one raises ValueError."""
    with pytest.raises(ValueError, match="counts from 1"):
        next_attempt_at(failures, NOW, None)


@given(failures=st.integers(1, 7), retry_after_s=SECONDS)
def test_a_receiver_may_delay_a_retry_but_not_advance_it(failures: int, retry_after_s: float | None) -> None:
    """The wait is the longer of the schedule and Retry-After, which counts up to two hours (X19)."""
    due = next_attempt_at(failures, NOW, retry_after_s)
    assert due is not None
    wait_s = (due - NOW).total_seconds()
    assert wait_s >= SCHEDULE_S[failures - 1]
    assert wait_s <= RETRY_AFTER_CAP_S
    if retry_after_s is not None and retry_after_s <= RETRY_AFTER_CAP_S:
        assert wait_s >= retry_after_s - 1e-6


@given(retry_after_s=SECONDS)
def test_waits_never_get_shorter(retry_after_s: float | None) -> None:
    """The wait after each failure is at least as long as the one before."""
    dues = [next_attempt_at(n, NOW, retry_after_s) or NOW for n in range(1, MAX_ATTEMPTS)]
    assert all(earlier <= later for earlier, later in pairwise(dues))


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [("0", 0), ("1", 1), ("120", 120), (" 30\t", 30), ("007", 7), ("7200", 7200), ("7201", 7200), ("9" * 30, 7200)],
)
def test_seconds_are_read_and_capped(header: str, wait_s: int) -> None:
    """Whole seconds count, at most two hours."""
    assert parse_retry_after(header, NOW) == wait_s


@pytest.mark.parametrize(
    "header",
    [
        *(None, "", " ", "-1", "-0", "+5", "1.5", "1e3", "0x10", "1 2", "5s", "soon", "NaN", "inf", "١٢", "²"),
        *("9" * 65, "1" * 5000, "Sat, 32 Nov 2026 02:01:00 GMT", "Sat, 21 Nov 2026 02:01:00 +0000", "2026-11-21T02:01"),
    ],
)
def test_an_invalid_header_counts_as_absent(header: str | None) -> None:
    """A header that is neither whole seconds nor an HTTP-date is ignored; so is a missing one."""
    assert parse_retry_after(header, NOW) is None


@pytest.mark.parametrize(
    "header",
    ["Sat, 21 Nov 2026 02:10:00 GMT", "Saturday, 21-Nov-26 02:10:00 GMT", "Sat Nov 21 02:10:00 2026"],
)
def test_all_three_forms_of_a_date_are_read(header: str) -> None:
    """A recipient accepts the three forms of an HTTP-date (RFC 9110 5.6.7)."""
    assert parse_retry_after(header, NOW) == pytest.approx(600 - 0.123456)


@given(offset_s=st.integers(-(10**8), 10**8))
def test_dates_count_only_in_the_future_and_up_to_the_cap(offset_s: int) -> None:
    """A date in the past counts as absent; one far in the future counts as two hours."""
    header = format_datetime((NOW + timedelta(seconds=offset_s)).replace(microsecond=0), usegmt=True)
    wait_s = parse_retry_after(header, NOW)
    if offset_s <= 0:
        assert wait_s is None
    else:
        assert wait_s == pytest.approx(min(offset_s - 0.123456, RETRY_AFTER_CAP_S))


@given(header=st.text(max_size=80))
def test_any_text_is_ignored_or_gives_a_wait_within_the_cap(header: str) -> None:
    """No header raises or gives a wait outside 0 to 7,200 s."""
    wait_s = parse_retry_after(header, NOW)
    assert wait_s is None or 0 <= wait_s <= RETRY_AFTER_CAP_S
