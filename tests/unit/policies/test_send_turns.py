"""Turns of the queues of messages, and the pace of an account's calls."""

from policies.send_turns import SendQueue, calls_due, next_call_s, take_turns


def _queue(name: str, *, live: bool = True, limit: int = 1000) -> SendQueue:
    return SendQueue(name, name, live, limit)


def test_one_busy_workspace_leaves_half_to_others() -> None:
    """A workspace with any number of due messages takes at most half of the free calls."""
    assert take_turns([_queue("a")], {}, 256, 256) == {"a": 128}


def test_workspaces_take_turns() -> None:
    """A workspace with few messages gets all of them, whatever stands beside it; the busy ones get the same number."""
    given = take_turns([_queue("a"), _queue("b"), _queue("quiet", limit=3)], {}, 256, 256)
    assert given["quiet"] == 3
    assert abs(given["a"] - given["b"]) <= 1
    assert sum(given.values()) < 256


def test_a_limit_of_a_claim_is_shared() -> None:
    """With more queues than calls in a claim, each of the first ones gets one."""
    given = take_turns([_queue(str(n)) for n in range(20)], {}, 256, 8)
    assert given == {str(n): 1 for n in range(8)}


def test_a_test_workspace_comes_after_live_ones() -> None:
    """A test workspace gets calls only of what live ones have left, and at most a ninth of the whole capacity."""
    queues = [_queue("test", live=False), _queue("live")]
    assert take_turns(queues, {}, 256, 40) == {"live": 40}
    assert take_turns(queues[:1], {}, 256, 256) == {"test": 28}


def test_calls_in_flight_count() -> None:
    """A workspace that holds its share gets nothing, while calls are free for others."""
    assert take_turns([_queue("a"), _queue("b")], {"a": 128}, 128, 128)["b"] >= 32
    assert "a" not in take_turns([_queue("a"), _queue("b")], {"a": 128}, 128, 128)
    assert take_turns([_queue("test", live=False)], {"test": 28}, 228, 128) == {}


def test_two_accounts_of_a_workspace_share_its_room() -> None:
    """The room is the workspace's: a second account does not double it."""
    queues = [SendQueue("one", "a", True, 1000), SendQueue("two", "a", True, 1000)]
    given = take_turns(queues, {}, 256, 256)
    assert given == {"one": 64, "two": 64}


def test_the_calls_of_an_account_keep_its_rate() -> None:
    """Whenever it is looked at, no more calls start in any second than the rate, plus a tenth of a second's."""
    rate, next_s, starts = 20.0, 0.0, []
    for step in range(2000):
        now_s = step * 0.013
        if 400 <= step < 900:
            continue  # nobody looks for 6.5 s: these calls are not made up
        calls = calls_due(next_s, now_s, rate)
        if calls:
            next_s = next_call_s(next_s, now_s, rate, calls)
            starts += [now_s] * calls
    for first_s in starts:
        assert sum(first_s <= start_s < first_s + 1 for start_s in starts) <= rate * 1.1 + 1
    looked_s = 1500 * 0.013
    assert len(starts) >= 0.95 * rate * looked_s


def test_a_slow_rate_starts_one_call_at_a_time() -> None:
    """One call in ten seconds: the second starts ten seconds after the first."""
    assert calls_due(5.0, 5.0, 0.1) == 1
    assert next_call_s(5.0, 5.0, 0.1, 1) == 15.0
    assert calls_due(15.0, 14.999, 0.1) == 0
