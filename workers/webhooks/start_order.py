"""The order in which endpoint queues that wait for a free call start one."""

from workers.webhooks.endpoint_queue import EndpointQueue


class StartOrder:
    """Queues that wait for a free call: first those without a call in flight, then the others, each group in turn.

    So the first event of an endpoint does not wait behind queues that work off a backlog. A queue that others overtake
    joins the first group as soon as its own calls have ended.
    """

    __slots__ = ("_busy", "_idle")

    def __init__(self) -> None:
        self._idle: dict[EndpointQueue, None] = {}
        self._busy: dict[EndpointQueue, None] = {}

    def __bool__(self) -> bool:
        return bool(self._idle or self._busy)

    def add(self, queue: EndpointQueue) -> None:
        """Append a queue to its group, unless it is there."""
        if queue.in_flight:
            self._busy[queue] = None
        else:
            self._busy.pop(queue, None)
            self._idle[queue] = None

    def pop(self) -> EndpointQueue:
        """Remove and return the next queue."""
        waiting = self._idle or self._busy
        queue = next(iter(waiting))
        del waiting[queue]
        return queue

    def remove(self, queue: EndpointQueue) -> bool:
        """Remove a queue. Returns whether it waited."""
        waited = queue in self._idle or queue in self._busy
        self._idle.pop(queue, None)
        self._busy.pop(queue, None)
        return waited
