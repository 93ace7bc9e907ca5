"""Laws of the rate to one person, after GCRA: no window holds more than the rate, and whoever waits has a turn of their own."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from policies.recipient_rate import MAX_SLACK, RecipientPace, RecipientRate

START = datetime(2026, 11, 2, 12, tzinfo=UTC)
GAPS_S = st.lists(st.floats(0, 20), min_size=1, max_size=60)


def fresh(interval_s: float, burst: int) -> RecipientPace:
    """The pace of a person who has got nothing."""
    return RecipientPace(RecipientRate(timedelta(seconds=interval_s), burst), START, START)


@given(GAPS_S, st.floats(0.5, 10), st.integers(1, 5))
def test_no_window_holds_more_than_the_burst_and_the_rate(gaps_s: list[float], interval_s: float, burst: int) -> None:
    """Asked at any times, at most `burst` messages and one for each whole interval are sent within any window."""
    pace, now, sent = fresh(interval_s, burst), START, []
    for gap_s in gaps_s:
        now += timedelta(seconds=gap_s)
        if pace.free_at(now) <= now:
            pace.use(now)
            sent.append(now)
    for n, first in enumerate(sent):
        for m in range(n, len(sent)):
            window = (sent[m] - first) / pace.rate.interval
            assert m - n + 1 <= burst + window + 1e-6


def test_a_burst_is_sent_at_once_and_made_up_for() -> None:
    """After a pause three go at once, the fourth an interval and some slack later; after long enough three go again."""
    pace = fresh(6, 3)
    for _ in range(3):
        assert pace.free_at(START) == START
        pace.use(START)
    assert pace.free_at(START) == START + timedelta(seconds=6) + MAX_SLACK
    later = START + timedelta(seconds=18)
    for _ in range(3):
        assert pace.free_at(later) == later
        pace.use(later)
    assert pace.free_at(later) > later


@given(st.integers(1, 50), st.floats(0.5, 10), st.integers(1, 5))
def test_whoever_waits_has_a_turn_of_its_own(count: int, interval_s: float, burst: int) -> None:
    """Messages that come at once are sent at their first turn each, an interval and some slack apart: none wakes to wait again.

    Not even if each is late by the slack.
    """
    pace, turns = fresh(interval_s, burst), []
    for _ in range(count):
        turn = pace.free_at(START)
        if turn <= START:
            pace.use(START)
        else:
            pace.queue(turn)
            turns.append(turn)
    assert len(turns) == max(0, count - burst)
    slack = min(MAX_SLACK, pace.rate.interval / 8)
    for n, turn in enumerate(turns, 1):
        assert abs(turn - START - (pace.rate.interval + slack) * n) < timedelta(milliseconds=1)
        sent_at = turn + slack * (n % 2)
        assert pace.free_at(sent_at) <= sent_at
        pace.use(sent_at)
