"""How workspaces divide the capacity of a process."""

from hypothesis import given
from hypothesis import strategies as st

from policies import fair_share


@given(held=st.integers(0, 10_000), free=st.integers(-10, 10_000), live=st.booleans())
def test_room_is_within_what_is_free(held: int, free: int, live: bool) -> None:
    """Room is never negative and never more than what is free, and a workspace that holds nothing gets some."""
    room = fair_share.room(held, free, live=live)
    assert room >= 0
    assert room <= max(free, 0)
    if free > 0 and held == 0:
        assert room >= 1


@given(held=st.integers(0, 10_000), free=st.integers(0, 10_000), live=st.booleans())
def test_a_workspace_never_holds_more_than_its_factor_of_what_stays_free(held: int, free: int, live: bool) -> None:
    """After a workspace took its room it holds at most its factor of what is free, or a single unit."""
    taken = fair_share.room(held, free, live=live)
    factor = fair_share.LIVE_FACTOR if live else fair_share.TEST_FACTOR
    assert taken == 0 or held + taken <= 1 or held + taken <= factor * (free - taken)


@given(workspaces=st.integers(1, 12), capacity=st.integers(200, 5_000))
def test_greedy_workspaces_leave_room(workspaces: int, capacity: int) -> None:
    """While every workspace takes all that it may, none holds more than half, and something stays free."""
    held = [0] * workspaces
    for _ in range(200):
        for n in range(workspaces):
            held[n] += fair_share.room(held[n], capacity - sum(held), live=True)
        # What was held is given back in turn, so that early workspaces do not keep what they took from an empty process.
        held = [part * 3 // 4 for part in held]
    for n in range(workspaces):
        held[n] += fair_share.room(held[n], capacity - sum(held), live=True)
    assert capacity - sum(held) > 0
    assert max(held) <= capacity // 2 + 1
