"""All endpoint queues of this process, and the capacity of each queue, of each workspace and of the process.

A queue holds what its endpoint can take in about one second (`policies.endpoint_capacity.depth`). What does not fit is
parked in Postgres behind it. All slow queues together get at most half of the capacity of the process, and those of one
workspace at most half of its share. A queue whose endpoint has not responded yet starts with a few calls. So receivers
that hang cannot take the capacity of the others.

A workspace holds as many deliveries, and bytes, as are still free (`policies.fair_share`). What exceeds that stays due.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Final

from workers.heartbeat import Heartbeat
from workers.webhooks.endpoint_cache import EndpointKey
from workers.webhooks.endpoint_queue import EndpointQueue
from workers.webhooks.held_bodies import HeldBodies
from workers.webhooks.jobs import DeliveryJob, EndpointLimits, Placement
from workers.webhooks.workspace_use import WorkspaceUse, WorkspaceUses

_IDLE_S: Final = 600.0
_WORTH_CLAIMING: Final = 8
_WORTH_RELAYING: Final = 3
_BATCH: Final = 128
"""A workspace gets more deliveries when it has room for this part of what it holds, or for a batch of so many."""


class EndpointQueues:
    """The queues by endpoint, and the count of leased deliveries. `bodies` counts the bytes."""

    def __init__(self, heartbeat: Heartbeat, max_held: int, max_held_bytes: int) -> None:
        self._heartbeat = heartbeat
        self._max_held = max_held
        self.bodies = HeldBodies(max_held_bytes)
        self._uses = WorkspaceUses()
        self._queues: OrderedDict[EndpointKey, EndpointQueue] = OrderedDict()  # the longest unused first
        self._active: dict[EndpointQueue, None] = {}
        self._held: dict[str, tuple[DeliveryJob, WorkspaceUse]] = {}
        self._claimed: set[str] = set()
        self._slow_held = 0
        self._reserved = 0
        self.stopping = False

    def __iter__(self) -> Iterator[EndpointQueue]:
        """The active queues: those that have jobs or calls in flight."""
        return iter(tuple(self._active))

    @property
    def held(self) -> int:
        """Number of deliveries leased to this process, with those whose result is not committed yet."""
        return len(self._held)

    @property
    def jobs(self) -> Iterable[DeliveryJob]:
        """Every delivery leased to this process."""
        return [job for job, _ in self._held.values()]

    def capacity(self, *, claimed: bool) -> int:
        """How many more deliveries this process may lease: by a claim, or new ones from the relay.

        Each kind gets at most three quarters of the whole: a backlog must not delay new events, and new events must not
        delay retries.
        """
        if self.stopping or self.bodies.free <= 0:
            return 0
        held = len(self._claimed) if claimed else len(self._held) - len(self._claimed)
        free = min(self._max_held - len(self._held), self._max_held - self._max_held // 4 - held)
        return max(0, free - self._reserved)

    def room(self, use: WorkspaceUse, capacity: int, worth: int = _WORTH_CLAIMING) -> int:
        """How many more deliveries a workspace may hold while the process may lease `capacity` more of their kind.

        0 also if that is little beside what it holds: a batch of a few deliveries is not worth its round trips.
        """
        room = min(capacity, use.room(use.held, self._free, self._max_held))
        return room if room >= min(use.held // worth, _BATCH) and self.bodies.has_room(use) else 0

    def relay_room(self, workspace_id: str) -> int:
        """How many more new deliveries a workspace may hold."""
        capacity, use = self.capacity(claimed=False), self._uses.find(workspace_id)
        return capacity if use is None else self.room(use, capacity, _WORTH_RELAYING)

    def full_workspaces(self, *, claimed: bool) -> list[str]:
        """The workspaces that may hold no more deliveries, or no more bytes, until some of theirs have ended."""
        capacity = self.capacity(claimed=claimed)
        return [use.id for use in self._uses.holding if self.room(use, capacity) <= 0]

    def queue(self, limits: EndpointLimits) -> EndpointQueue:
        """The queue of an endpoint, created if missing. Limits of a newer endpoint version replace the present ones.

        Its share follows the list of live workers: it is computed again at the first use after a change.
        """
        key = (limits.workspace_id, limits.id)
        queue = self._queues.get(key)
        if queue is None:
            use = self._uses.open_queue(limits.workspace_id, live=limits.live)
            queue = self._queues[key] = EndpointQueue(limits, use)
        is_newer = queue.limits.version < limits.version
        if is_newer:
            queue.limits = limits
        if is_newer or queue.workers is not self._heartbeat.live_workers:
            queue.set_share(self._heartbeat)
        return queue

    def find(self, key: EndpointKey) -> EndpointQueue | None:
        """The queue of an endpoint; None if it has none."""
        return self._queues.get(key)

    def rebalance(self) -> None:
        """Compute the shares of the active queues again after a change of the list of live workers."""
        for queue in self:
            queue.set_share(self._heartbeat)

    def reserve(self, limits: EndpointLimits, now_s: float) -> Placement:
        """Choose the placement of a delivery. LEASED reserves a place: `load` fills it, `cancel_reservation` frees it.

        PARKED: its queue is full, or other workers serve its endpoint. DUE: its workspace may hold no more.
        """
        queue = self.queue(limits)
        if queue.share == 0:
            return Placement.PARKED
        if self.queue_capacity(queue, now_s) <= 0:
            queue.parked = True
            return Placement.PARKED
        use = queue.workspace
        if not use.has_room(use.held, self._free, self._max_held) or not self.bodies.has_room(use):
            return Placement.DUE
        queue.reserved += 1
        self._reserved += 1
        self._uses.hold(use, 1)
        self._add_slow(queue, 1)
        return Placement.LEASED

    def queue_capacity(self, queue: EndpointQueue, now_s: float) -> int:
        """How many more deliveries the queue may hold; negative if it holds too many."""
        capacity = queue.depth(now_s) - queue.held
        if queue.slow and capacity > 0:
            use = queue.workspace
            capacity = min(capacity, use.room(use.slow_held, self._slow_free, self._max_held // 2))
        return capacity

    @property
    def _free(self) -> int:
        """Places that are neither held nor reserved."""
        return self._max_held - len(self._held) - self._reserved

    @property
    def _slow_free(self) -> int:
        return self._max_held // 2 - self._slow_held

    def _add_slow(self, queue: EndpointQueue, count: int) -> None:
        if queue.slow:
            self._slow_held += count
            queue.workspace.slow_held += count

    def end_call(self, queue: EndpointQueue) -> None:
        """Free the place of a call that has ended."""
        queue.in_flight -= 1
        self._remove_places(queue, 1)

    def _remove_places(self, queue: EndpointQueue, count: int) -> None:
        self._add_slow(queue, -count)
        if not queue.jobs and not queue.in_flight:
            self._active.pop(queue, None)

    def set_slow(self, queue: EndpointQueue, slow: bool) -> None:
        """Mark the queue as slow or as fast, and correct the count of the slow ones."""
        self._add_slow(queue, -queue.held)
        queue.slow = slow
        self._add_slow(queue, queue.held)

    def pop_oldest(self, queue: EndpointQueue) -> DeliveryJob:
        """Remove the oldest waiting job from a queue and return it. It stays leased until `release`."""
        job = queue.jobs.popleft()
        self._remove_places(queue, 1)
        return job

    def clear(self, queue: EndpointQueue) -> list[DeliveryJob]:
        """Remove all waiting jobs from a queue and return them. They stay leased until `release`."""
        waiting = list(queue.jobs)
        queue.jobs.clear()
        self._remove_places(queue, len(waiting))
        return waiting

    def cancel_reservation(self, limits: EndpointLimits) -> None:
        """Free a reserved place."""
        queue = self.queue(limits)
        queue.reserved -= 1
        self._reserved -= 1
        self._uses.hold(queue.workspace, -1)
        self._add_slow(queue, -1)

    def load(self, limits: EndpointLimits, job: DeliveryJob, now_s: float, *, claimed: bool) -> EndpointQueue:
        """Append a job to its queue, in the place that was reserved for it. Returns the queue."""
        queue = self.queue(limits)
        queue.reserved -= 1
        self._reserved -= 1
        known = self._held.get(job.id)
        if known is not None:  # its lease was lost and the row is claimed again, while its call lasts
            self.release(known[0])
        queue.used_s = now_s
        self._queues.move_to_end(queue.key)
        self._active[queue] = None
        queue.jobs.append(job)
        self._held[job.id] = job, queue.workspace
        if claimed:
            self._claimed.add(job.id)
        self.bodies.add(queue.workspace, job)
        return queue

    def release(self, job: DeliveryJob) -> None:
        """Forget a delivery that this process no longer leases: its result is committed, or its lease released or lost."""
        held, use = self._held.get(job.id, (None, None))
        if held is not job or use is None:
            return
        del self._held[job.id]
        self._claimed.discard(job.id)
        self._uses.hold(use, -1)
        self.bodies.remove(use, job)

    def remove_excess(self, queue: EndpointQueue, now_s: float) -> list[DeliveryJob]:
        """Remove the newest waiting jobs that exceed the depth of a queue, or the share of the slow ones; return them."""
        use = queue.workspace
        depth = queue.depth(now_s)
        removed: list[DeliveryJob] = []
        while queue.jobs and (
            queue.held > depth or (queue.slow and use.is_over(use.slow_held, self._slow_free, self._max_held // 2))
        ):
            removed.append(queue.jobs.pop())
            self._remove_places(queue, 1)
        return removed

    def is_half_empty(self, queue: EndpointQueue, now_s: float) -> bool:
        """Whether the queue has drained to half of its depth, so that parked rows may be claimed for it."""
        capacity = self.queue_capacity(queue, now_s)
        return capacity > 0 and capacity * 2 >= queue.depth(now_s)

    def evict_idle(self, now_s: float) -> None:
        """Drop queues that were not used for ten minutes and hold nothing. Looks at these only."""
        for _ in range(len(self._queues)):
            key, queue = next(iter(self._queues.items()))
            if now_s - queue.used_s <= _IDLE_S:
                return
            if queue.held or queue.parked:
                queue.used_s = now_s
                self._queues.move_to_end(key)
                continue
            del self._queues[key]
            self._uses.close_queue(queue.workspace)
