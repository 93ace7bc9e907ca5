"""The order of starts: workspaces in turn, live ones first, and in each workspace its queues in turn."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from workers.webhooks.call_slots import CallSlots
from workers.webhooks.endpoint_queue import EndpointQueue
from workers.webhooks.jobs import EndpointLimits
from workers.webhooks.queue_turns import QueueTurns
from workers.webhooks.start_order import LIVE_PER_TEST, StartOrder
from workers.webhooks.workspace_use import WorkspaceUse, WorkspaceUses

SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=8)


def _queues(name: str, count: int, *, live: bool = True) -> list[EndpointQueue]:
    use = WorkspaceUse(name, WorkspaceUses(), live=live)
    return [EndpointQueue(EndpointLimits(name, f"whe_{n}", 1, 20, None, live), use) for n in range(count)]


def _anybody(_: WorkspaceUse) -> bool:
    return True


@given(sizes=SIZES)
def test_every_workspace_gets_a_turn_per_round(sizes: list[int]) -> None:
    """While they wait, workspaces get equal numbers of turns, however many queues each has; each queue comes once."""
    turns = QueueTurns()
    for n, size in enumerate(sizes):
        for queue in _queues(f"wsp_{n}", size):
            turns.add(queue)
    left = Counter({f"wsp_{n}": size for n, size in enumerate(sizes)})
    seen: Counter[str] = Counter()
    popped = set()
    while (popped_queue := turns.pop(_anybody)) is not None:
        popped.add(popped_queue)
        seen[popped_queue.workspace.id] += 1
        left[popped_queue.workspace.id] -= 1
        most = max(seen.values())
        assert all(seen[id] >= most - 1 for id, count in left.items() if count)
    assert len(popped) == sum(sizes)
    assert not turns


def test_a_workspace_that_may_not_start_is_passed_over() -> None:
    """A workspace at its limit does not hold back those behind it, and is found again later."""
    turns = QueueTurns()
    (full,), (other,) = _queues("full", 1), _queues("other", 1)
    turns.add(full)
    turns.add(other)
    assert turns.pop(lambda use: use.id != "full") is other
    assert turns.pop(lambda use: use.id != "full") is None
    assert turns.pop(_anybody) is full


def test_queues_without_a_call_come_first() -> None:
    """In a workspace, a queue without a call in flight overtakes those with calls."""
    turns = QueueTurns()
    busy, idle = _queues("wsp", 2)
    busy.in_flight = 1
    turns.add(busy)
    turns.add(idle)
    assert [turns.pop(_anybody), turns.pop(_anybody)] == [idle, busy]


def test_test_workspaces_do_not_overtake_live_ones() -> None:
    """Test workspaces that wait first start after the live ones, except one in nine, so that they progress."""
    order = StartOrder()
    for queue in [*_queues("test", 40, live=False), *_queues("live", 40)]:
        order.add(queue)
    started = []
    while (next_queue := order.pop(_anybody)) is not None:
        started.append(next_queue.workspace.id)
    assert started[: LIVE_PER_TEST + 1] == ["live"] * LIVE_PER_TEST + ["test"]
    assert started[:45].count("test") == 5
    assert started[45:] == ["test"] * 35


def test_a_removed_queue_does_not_start() -> None:
    """A queue is removed once, from the workspaces of its kind."""
    order = StartOrder()
    (queue,) = _queues("wsp", 1)
    order.add(queue)
    assert (order.remove(queue), order.remove(queue), bool(order)) == (True, False, False)


@given(sizes=SIZES, data=st.data())
def test_calls_are_counted_and_shared(sizes: list[int], data: st.DataObject) -> None:
    """Whatever starts, ends and becomes slow: no call too many, and a workspace without calls may start one while any is free."""
    slots = CallSlots(20)
    queues = [queue for n, size in enumerate(sizes) for queue in _queues(f"wsp_{n}", size)]
    for _ in range(60):
        queue = data.draw(st.sampled_from(queues))
        action = data.draw(st.sampled_from(["start", "start", "start", "end", "move"]))
        if action == "start" and slots.has_free(queue.workspace, slow=queue.slow):
            slots.take(queue)
            queue.in_flight += 1
        elif action == "end" and queue.in_flight:
            slots.give_back(queue)
            queue.in_flight -= 1
        elif action == "move":
            slots.move(queue, slow=not queue.slow)
            queue.slow = not queue.slow
    assert slots.in_flight == sum(queue.in_flight for queue in queues)
    for queue in queues:
        mine = [one for one in queues if one.workspace is queue.workspace]
        assert queue.workspace.calls == [
            sum(one.in_flight for one in mine if one.slow is slow) for slow in (False, True)
        ]
    fresh = WorkspaceUse("fresh", WorkspaceUses(), live=False)
    fast = sum(queue.in_flight for queue in queues if not queue.slow)
    if fast + min(10, slots.in_flight - fast) < 20:
        assert slots.has_free(fresh, slow=False)
