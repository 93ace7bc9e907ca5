"""Endpoint queues that wait for something: the workspaces take turns, and in each workspace its queues."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from workers.webhooks.endpoint_queue import EndpointQueue
from workers.webhooks.workspace_use import WorkspaceUse

_CHECKED: Final = 64
"""Workspaces that one `pop` checks. The next one continues behind them."""


class QueueTurns:
    """The waiting queues by workspace. Each operation takes the same time, however many wait."""

    __slots__ = ("_turns",)

    def __init__(self) -> None:
        self._turns: OrderedDict[WorkspaceUse, _Queues] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._turns)

    def add(self, queue: EndpointQueue) -> None:
        """Append a queue to those of its workspace, unless it is there. A workspace that had none gets the last turn."""
        queues = self._turns.get(queue.workspace)
        if queues is None:
            queues = self._turns[queue.workspace] = _Queues()
        queues.add(queue)

    def pop(self, may_take: Callable[[WorkspaceUse], bool]) -> EndpointQueue | None:
        """Remove and return the next queue of the next workspace that may take its turn; None if none was found."""
        turns = self._turns
        waiting = len(turns)
        for _ in range(min(waiting, _CHECKED)):
            use, queues = next(iter(turns.items()))
            if waiting > 1:
                turns.move_to_end(use)
            if may_take(use):
                queue, more = queues.pop()
                if not more:
                    del turns[use]
                return queue
        return None

    def remove(self, queue: EndpointQueue) -> bool:
        """Remove a queue. Returns whether it waited."""
        queues = self._turns.get(queue.workspace)
        if queues is None or not queues.remove(queue):
            return False
        if not queues:
            del self._turns[queue.workspace]
        return True


class _Queues:
    """The waiting queues of one workspace: those without a call in flight, then the others, each group in turn.

    So the first event of an endpoint does not wait behind queues that work off a backlog. A queue that others overtake
    joins the first group as soon as its own calls have ended.
    """

    __slots__ = ("_busy", "_idle")

    def __init__(self) -> None:
        self._idle: OrderedDict[EndpointQueue, None] = OrderedDict()
        self._busy: OrderedDict[EndpointQueue, None] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._idle or self._busy)

    def add(self, queue: EndpointQueue) -> None:
        if queue.in_flight:
            if queue not in self._idle:
                self._busy[queue] = None
        else:
            self._busy.pop(queue, None)
            self._idle[queue] = None

    def pop(self) -> tuple[EndpointQueue, bool]:
        """Remove and return the next queue, and whether others wait."""
        queue = (self._idle or self._busy).popitem(last=False)[0]
        return queue, bool(self._idle or self._busy)

    def remove(self, queue: EndpointQueue) -> bool:
        waited = queue in self._idle or queue in self._busy
        self._idle.pop(queue, None)
        self._busy.pop(queue, None)
        return waited
