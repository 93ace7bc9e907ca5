"""Shares out the free calls of a process between the queues that have due messages, and paces the calls of an account.

A queue is the due messages of one workspace, or the messages that wait for one provider account. Queues take turns: one
call each per round, as many as `policies.fair_share` allows their workspace. Queues of test workspaces get a turn only
after those of live workspaces have taken what they may.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from policies.fair_share import room

BURST_S: Final = 0.1
"""Calls that an account did not make during this time may be made up: workers do not look at its messages all the time."""


@dataclass(frozen=True, slots=True)
class SendQueue:
    """Messages that may be claimed: at most `limit` of them now. `key` is a workspace or an account."""

    key: str
    workspace_id: str
    live: bool
    limit: int


def take_turns(queues: Sequence[SendQueue], held: Mapping[str, int], free: int, limit: int) -> dict[str, int]:
    """Return how many calls each queue gets, `limit` at most in all. `held` are the calls in flight by workspace."""
    given: Counter[str] = Counter()
    holds = Counter(held)
    for live in (True, False):
        turns = [queue for queue in queues if queue.live is live and queue.limit > 0]
        while turns and given.total() < limit:
            next_round = []
            for queue in turns[: limit - given.total()]:
                if room(holds[queue.workspace_id], free, live=live) < 1:
                    continue
                given[queue.key] += 1
                holds[queue.workspace_id] += 1
                free -= 1
                if given[queue.key] < queue.limit:
                    next_round.append(queue)
            turns = next_round
    return dict(given)


def calls_due(next_s: float, now_s: float, rate_per_s: float) -> int:
    """Return how many calls an account may make now, if its next call may start at `next_s`. Clocks are monotonic."""
    return 0 if next_s > now_s else 1 + int(min(now_s - next_s, BURST_S) * rate_per_s)


def next_call_s(next_s: float, now_s: float, rate_per_s: float, calls: int) -> float:
    """Return when the account's next call may start, after `calls` that start now."""
    return max(next_s, now_s - BURST_S) + calls / rate_per_s
