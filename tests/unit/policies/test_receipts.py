"""Laws of receipts: the rank only rises, the order does not matter, and a delivery overrides a failure."""

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
def test_the_order_of_receipts_does_not_matter(reports: list[Report], random: object) -> None:
    """Shuffled and repeated receipts end in the highest state among them (failure cases 1 and 3)."""
    shuffled = list(reports)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    assert (
        after("accepted", shuffled) == after("accepted", reports) == max(["accepted", *reports], key=RANK.__getitem__)
    )


def test_every_order_of_all_four_ends_read() -> None:
    """With a failure among the receipts, the final state is still `read` in every order (failure case 4)."""
    for order in itertools.permutations(REPORTS):
        assert after("accepted", list(order)) == "read"


def test_the_rank_falls_only_by_a_failure_before_delivery() -> None:
    """Neither a late `sent` nor a failure reverts `delivered` (N-07)."""
    for state in ("accepted", "sent", "delivered", "read"):
        for report in REPORTS:
            moved = advance(state, report)
            assert moved is None or RANK[moved] > RANK[state] or (moved == "failed" and RANK[state] < RANK["delivered"])


def test_a_delivery_overrides_a_failure_and_sent_does_not() -> None:
    """A later `delivered` overrides `failed`; a later `sent` changes nothing."""
    assert advance("failed", "delivered") == "delivered"
    assert advance("failed", "sent") is None
    assert advance("failed", "failed") is None


def test_success_depends_on_the_policy() -> None:
    """Acceptance reaches `sent`; only a receipt reaches `delivered`."""
    assert succeeded("accepted", "sent")
    assert not succeeded("sent", "delivered")
    assert succeeded("read", "delivered")
    assert not succeeded("failed", "sent")
