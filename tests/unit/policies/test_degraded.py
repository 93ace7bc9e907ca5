"""Accounts judged by their receipts: against their own past, never on few messages, never all together."""

from hypothesis import given
from hypothesis import strategies as st

from policies.degraded import MARGIN, MIN_MESSAGES, Receipts, degraded

GOOD, BAD, FEW = Receipts(100, 97), Receipts(100, 60), Receipts(MIN_MESSAGES - 1, 0)
SAMPLES = st.builds(
    lambda accepted, share: Receipts(accepted, int(accepted * share)), st.integers(0, 200), st.floats(0, 1)
)


def test_the_bad_one_of_two_is_degraded() -> None:
    """One delivers, the other does not."""
    assert degraded({"a": GOOD, "b": BAD}, {}) == {"b"}


def test_its_own_past_is_the_measure() -> None:
    """An account that never delivers more than so many (landlines, say) is not degraded by that."""
    assert degraded({"a": GOOD, "b": BAD}, {"b": Receipts(1000, 580)}) == frozenset()
    assert degraded({"a": GOOD, "b": BAD}, {"b": Receipts(1000, 950)}) == {"b"}


def test_all_together_are_not() -> None:
    """If each that can be judged is bad, it is not the account; one with few messages is no measure either."""
    assert degraded({"a": BAD, "b": BAD}, {}) == frozenset()
    assert degraded({"a": FEW, "b": BAD}, {}) == frozenset()
    assert degraded({"a": GOOD, "b": FEW}, {}) == frozenset()


@given(st.dictionaries(st.sampled_from("abcd"), SAMPLES), st.dictionaries(st.sampled_from("abcd"), SAMPLES))
def test_some_account_stays(recent: dict[str, Receipts], usual: dict[str, Receipts]) -> None:
    """Whatever the figures, one judged account is not degraded, and none is with less than the margin missing."""
    found = degraded(recent, usual)
    judged = {id for id, one in recent.items() if one.accepted >= MIN_MESSAGES}
    assert found <= judged
    assert not judged or found < judged
    assert all(recent[id].missing > MARGIN for id in found)
