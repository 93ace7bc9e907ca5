"""How many calls this process makes at once, and how many of them each workspace may make.

All slow queues together get at most half of the calls. Of the calls for queues of its kind, fast or slow, a workspace
may make as many as are still free (`policies.fair_share`). So neither receivers that hang nor one busy workspace can take
the calls of the others.
"""

from workers.webhooks.endpoint_queue import EndpointQueue
from workers.webhooks.workspace_use import WorkspaceUse


class CallSlots:
    """Counts the calls in flight of slow and of fast queues."""

    def __init__(self, max_calls: int) -> None:
        self._max = max_calls
        self._half = max(1, max_calls // 2)
        self._calls = [0, 0]  # of fast queues, of slow queues

    @property
    def in_flight(self) -> int:
        """Number of calls in flight."""
        return self._calls[False] + self._calls[True]

    def has_free(self, use: WorkspaceUse, *, slow: bool) -> bool:
        """Whether the workspace may start one more call of a slow queue, or of a fast one."""
        return use.has_room(use.calls[slow], self._free(slow), self._half if slow else self._max)

    def take(self, queue: EndpointQueue) -> None:
        """Count a call that starts."""
        self._add(queue, queue.slow, 1)

    def give_back(self, queue: EndpointQueue) -> None:
        """Count the end of a call."""
        self._add(queue, queue.slow, -1)

    def move(self, queue: EndpointQueue, *, slow: bool) -> None:
        """Count the calls of a queue as those of a slow queue, or of a fast one, before its mark changes."""
        self._add(queue, queue.slow, -queue.in_flight)
        self._add(queue, slow, queue.in_flight)

    def _free(self, slow: bool) -> int:
        of_fast, of_slow = self._calls
        if slow:
            return min(self._half - of_slow, self._max - of_fast - of_slow)
        # Queues that have just become slow may have more than half in flight; that must not reduce the other half.
        return self._max - of_fast - min(of_slow, self._max // 2)

    def _add(self, queue: EndpointQueue, slow: bool, count: int) -> None:
        self._calls[slow] += count
        queue.workspace.calls[slow] += count
