"""The bodies of the deliveries that this process holds, and how many more bytes it may hold.

Room follows the bytes that are really held, and those that a running batch may add. Nothing is estimated from bodies
that are gone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from workers.webhooks.jobs import DeliveryJob
from workers.webhooks.workspace_use import WorkspaceUse

_BATCH_PART: Final = 8
"""A batch may load this part of the bytes of the process: loading blocks the event loop, and several batches run at once."""


class HeldBodies:
    """Each held body once, with its number of deliveries, by event id."""

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._bodies: dict[str, tuple[bytes, list[int]]] = {}
        self.bytes = 0
        """Bytes of all held bodies."""
        self._reserved = 0

    def __contains__(self, event_id: str) -> bool:
        return event_id in self._bodies

    @property
    def free(self) -> int:
        """Bytes that are neither held nor reserved; negative if a body was larger than the rest."""
        return self._max - self.bytes - self._reserved

    def batch_room(self) -> int:
        """How many bytes of bodies the next batch may load. A batch with any room may load one body of any size."""
        return max(0, min(self.free, self._max // _BATCH_PART))

    def reserve(self, size: int) -> None:
        """Reserve room for the bodies of a running batch. A negative size frees it after the batch."""
        self._reserved += size

    @contextmanager
    def reserved_batch(self) -> Iterator[int]:
        """Reserve the room of a batch while it runs, and return it: at least 1, for a batch that reads before it decides."""
        room = max(1, self.batch_room())
        self.reserve(room)
        try:
            yield room
        finally:
            self.reserve(-room)

    def admits(self, use: WorkspaceUse, size: int, planned: int = 0) -> bool:
        """Whether a workspace may hold a further body of this size, with `planned` bytes to be added before it.

        A workspace that holds nothing may hold one body of any size while anything is free. So no body is too large for
        an empty process.
        """
        held, free = use.bytes + planned, self.free
        return free > 0 and (held == 0 or size <= use.room(held, free, self._max))

    def has_room(self, use: WorkspaceUse) -> bool:
        """Whether a workspace may hold at least one byte more."""
        return use.has_room(use.bytes, self.free, self._max)

    def add(self, use: WorkspaceUse, job: DeliveryJob) -> None:
        """Hold the body of a delivery. Deliveries of one event share one body."""
        shared = self._bodies.get(job.event_id)
        if shared is None:
            self._bodies[job.event_id] = (job.body, [1])
            size = len(job.body)
            self.bytes += size
            use.bytes += size
        else:
            job.body = shared[0]
            shared[1][0] += 1

    def remove(self, use: WorkspaceUse, job: DeliveryJob) -> None:
        """Give back the body of a delivery, with the last delivery of its event."""
        body, users = self._bodies[job.event_id]
        users[0] -= 1
        if users[0] == 0:
            del self._bodies[job.event_id]
            size = len(body)
            self.bytes -= size
            use.bytes -= size
