"""Laws of receipts: rank only rises, any order ends alike, and a delivery overrides a failure."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from policies.receipts import RANK, Report, State, advance, succeeded

REPORTS: list[Report] = ["sent", "delivered", "read", "failed"]


def after(state: State, reports: list[Report]) -> State:
    """The state after these reports, in this order."""
    for report in reports:
        state = advance(state, report) or state
    return state


@given(st.lists(st.sampled_from(["sent", "delivered", "read"]), max_size=6), st.randoms())
def test_any_order_ends_alike(reports: list[Report], random: object) -> None:
    """Shuffled and repeated receipts end in the state of the highest one (failure cases 1 and 3)."""
    shuffled = list(reports)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    assert (
        after("accepted", shuffled) == after("accepted", reports) == max(["accepted", *reports], key=RANK.__getitem__)
    )


def test_every_order_of_all_four_ends_read() -> None:
    """With a failure among them too, `read` has the last word, wherever it stands (failure case 4)."""
    for order in itertools.permutations(REPORTS):
        assert after("accepted", list(order)) == "read"


def test_rank_never_falls_but_to_a_failure_before_delivery() -> None:
    """A late `sent` cannot undo `delivered`, and a failure cannot undo it either (N-07)."""
    for state in ("accepted", "sent", "delivered", "read"):
        for report in REPORTS:
            moved = advance(state, report)
            assert moved is None or RANK[moved] > RANK[state] or (moved == "failed" and RANK[state] < RANK["delivered"])


def test_a_delivery_after_a_failure_is_believed_and_a_mere_sent_is_not() -> None:
    """A provider's later `delivered` overrides `failed`; `sent` says nothing new."""
    assert advance("failed", "delivered") == "delivered"
    assert advance("failed", "sent") is None
    assert advance("failed", "failed") is None


def test_success_is_the_policys_word() -> None:
    """`sent` is reached by acceptance; `delivered` by nothing less than a receipt."""
    assert succeeded("accepted", "sent")
    assert not succeeded("sent", "delivered")
    assert succeeded("read", "delivered")
    assert not succeeded("failed", "sent")
