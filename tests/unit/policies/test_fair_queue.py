"""How flows share work by what it costs, and how workspaces take turns."""

from hypothesis import given
from hypothesis import strategies as st

from policies.fair_queue import FairQueue
from policies.turns import TEST_PART, Turns, divide

COSTS = st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=30), min_size=2, max_size=8)
ENVIRONMENTS = st.dictionaries(st.text("abc", min_size=1, max_size=4), st.booleans(), min_size=1, max_size=20)


@given(costs=COSTS)
def test_flows_that_wait_get_equal_shares(costs: list[list[int]]) -> None:
    """While two flows wait, neither has had more than the other by more than the costs of one piece of work of each."""
    queue: FairQueue[int] = FairQueue()
    queue.open(range(len(costs)))
    left = [list(flow) for flow in costs]
    had = [0] * len(costs)
    while (flow := queue.next()) is not None:
        cost = left[flow].pop(0)
        had[flow] += cost
        queue.charge(flow, cost, waits=bool(left[flow]))
        for other, pieces in enumerate(left):
            if pieces and left[flow]:
                assert abs(had[flow] - had[other]) <= max(costs[flow]) + max(costs[other])
    assert had == [sum(flow) for flow in costs]


@given(costs=COSTS, batch=st.integers(1, 60))
def test_shares_are_equal_across_batches(costs: list[list[int]], batch: int) -> None:
    """A batch may end in the middle of a round: what a flow has had too much counts against it in the next batch."""
    queue: FairQueue[int] = FairQueue()
    endless = {flow: max(pieces) for flow, pieces in enumerate(costs)}
    had = dict.fromkeys(endless, 0)
    for _ in range(30):
        queue.open(endless)
        room = batch
        while room > 0 and (flow := queue.next()) is not None:
            queue.charge(flow, endless[flow], waits=True)
            had[flow] += endless[flow]
            room -= endless[flow]
        queue.close()
    for flow, other in ((flow, other) for flow in had for other in had):
        assert had[flow] - had[other] <= endless[flow] + endless[other]


@given(before=st.integers(1, 1000), pause=st.integers(1, 100))
def test_a_pause_saves_nothing_up(before: int, pause: int) -> None:
    """A flow that comes back goes next, but does not get what it has not asked for meanwhile."""
    queue: FairQueue[str] = FairQueue()
    queue.open(["busy"])
    for _ in range(before):
        assert queue.next() == "busy"
        queue.charge("busy", 1, waits=True)
    queue.open(["quiet"])
    served = []
    for _ in range(2 * pause):
        flow = queue.next()
        assert flow is not None
        served.append(flow)
        queue.charge(flow, 1, waits=True)
    assert served[:2].count("quiet") == 1
    assert abs(served.count("quiet") - served.count("busy")) <= 2


@given(tests=st.integers(1, 30), rounds=st.integers(20, 200))
def test_live_workspaces_go_before_test_ones(tests: int, rounds: int) -> None:
    """However many test workspaces wait, together they get an eighth of what one live one gets, and they do get it."""
    turns = Turns()
    waiting = {f"test{n}": False for n in range(tests)} | {"live": True}
    turns.open(waiting)
    served: list[str] = []
    for _ in range(rounds * (TEST_PART + 1)):
        workspace = turns.next()
        assert workspace is not None
        served.append(workspace)
        turns.charge(workspace, 1, waits=True)
    assert served[0] == "live"
    assert abs(served.count("live") - rounds * TEST_PART) <= TEST_PART
    each = [served.count(f"test{n}") for n in range(tests)]
    assert max(each) - min(each) <= 1


@given(waiting=ENVIRONMENTS)
def test_every_workspace_is_served_in_the_end(waiting: dict[str, bool]) -> None:
    """Each waiting workspace has its turn, and none has it after it has nothing left."""
    turns = Turns()
    turns.open(waiting)
    left = {workspace: 1 + n % 3 for n, workspace in enumerate(waiting)}
    while (workspace := turns.next()) is not None:
        left[workspace] -= 1
        turns.charge(workspace, 1 + left[workspace], waits=left[workspace] > 0)
    assert set(left.values()) == {0}


@given(waiting=ENVIRONMENTS, rows=st.integers(1, 600))
def test_rows_are_divided_equally(waiting: dict[str, bool], rows: int) -> None:
    """Workspaces of an environment get as many rows; while live ones wait, test ones get a ninth of all and at least one."""
    found = divide(rows, waiting)
    assert min(found.values()) >= 1
    assert sum(found.values()) <= rows + 1
    for live in (True, False):
        counts = [count for workspace, count in found.items() if waiting[workspace] is live]
        assert counts or live not in waiting.values()
        assert not counts or max(counts) == min(counts)
    if set(waiting.values()) == {True, False}:
        tests = sum(count for workspace, count in found.items() if not waiting[workspace])
        assert tests <= max(1, rows // (TEST_PART + 1))
    for live in (True, False):
        of_one = [workspace for workspace, is_live in waiting.items() if is_live is live]
        assert [workspace in found for workspace in of_one] == sorted((w in found for w in of_one), reverse=True)
