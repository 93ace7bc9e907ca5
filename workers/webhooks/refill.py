"""Chooses the endpoint queues for which parked rows are claimed: those that have drained to half, in turn."""

from workers.webhooks.endpoint_queue import EndpointQueue
from workers.webhooks.endpoint_queues import EndpointQueues
from workers.webhooks.queue_turns import QueueTurns
from workers.webhooks.workspace_use import WorkspaceUse


class Refill:
    """The queues that have parked rows and room for them. The workspaces take turns, and in each workspace its queues."""

    def __init__(self, queues: EndpointQueues) -> None:
        self._queues = queues
        self._turns = QueueTurns()

    def __bool__(self) -> bool:
        return bool(self._turns)

    def add(self, queue: EndpointQueue) -> None:
        """Append a queue, unless it is there."""
        self._turns.add(queue)

    def take(self, now_s: float, rows: int) -> list[tuple[EndpointQueue, int]]:
        """Remove queues, and return them with the number of parked rows to claim for each, `rows` at most in all.

        A queue that has no parked rows, or is more than half full, is dropped: its next call that ends adds it again.
        """
        free = self._queues.capacity(claimed=True)
        left = min(rows, free)
        room: dict[WorkspaceUse, int] = {}

        def may_take(use: WorkspaceUse) -> bool:
            if use not in room:
                room[use] = self._queues.room(use, free)
            return room[use] > 0

        taken: list[tuple[EndpointQueue, int]] = []
        while left > 0 and (queue := self._turns.pop(may_take)) is not None:
            queue = self._queues.queue(queue.limits)  # computes its share again if the list of workers has changed
            if queue.parked and queue.share and self._queues.is_half_empty(queue, now_s):
                count = min(self._queues.queue_capacity(queue, now_s), left, room[queue.workspace])
                taken.append((queue, count))
                room[queue.workspace] -= count
                left -= count
        return taken
