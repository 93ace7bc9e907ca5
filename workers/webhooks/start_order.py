"""The order in which endpoint queues that wait for a free call start one."""

from collections.abc import Callable
from typing import Final

from workers.webhooks.endpoint_queue import EndpointQueue
from workers.webhooks.queue_turns import QueueTurns
from workers.webhooks.workspace_use import WorkspaceUse

LIVE_PER_TEST: Final = 8
"""So many starts of live workspaces in succession are followed by one of a test workspace, if any waits."""


class StartOrder:
    """Queues that wait for a free call. The live workspaces take turns, and then the test workspaces.

    Test workspaces start what live ones leave, and one call in nine while live ones wait without an end.
    """

    __slots__ = ("_live", "_live_starts", "_test")

    def __init__(self) -> None:
        self._live = QueueTurns()
        self._test = QueueTurns()
        self._live_starts = 0

    def __bool__(self) -> bool:
        return bool(self._live or self._test)

    def add(self, queue: EndpointQueue) -> None:
        """Append a queue to those of its workspace, unless it is there."""
        self._turns(queue).add(queue)

    def pop(self, may_start: Callable[[WorkspaceUse], bool]) -> EndpointQueue | None:
        """Remove and return the next queue of a workspace that may start a call; None if none was found."""
        test_first = self._live_starts >= LIVE_PER_TEST
        for turns in (self._test, self._live) if test_first else (self._live, self._test):
            queue = turns.pop(may_start)
            if queue is not None:
                self._live_starts = self._live_starts + 1 if turns is self._live else 0
                return queue
        return None

    def remove(self, queue: EndpointQueue) -> bool:
        """Remove a queue. Returns whether it waited."""
        return self._turns(queue).remove(queue)

    def _turns(self, queue: EndpointQueue) -> QueueTurns:
        return self._live if queue.workspace.live else self._test
