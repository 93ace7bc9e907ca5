"""All endpoint queues of this process, and the capacity of each queue and of the process.

A queue holds what its endpoint can take in about one second (`policies.endpoint_capacity.depth`). What does not fit is
parked in Postgres behind it. All slow queues together get at most half of the process: of its calls in flight and of
its capacity. A queue whose endpoint has not responded yet starts with a few calls. So receivers that hang cannot take
the capacity of the others.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from policies import endpoint_capacity
from workers.heartbeat import Heartbeat
from workers.webhooks.endpoint_cache import Endpoint, EndpointKey
from workers.webhooks.endpoint_queue import EndpointQueue
from workers.webhooks.jobs import DeliveryJob, EndpointLimits, Placement

_IDLE_S: Final = 600.0


class EndpointQueues:
    """The queues by endpoint, and the count of leased deliveries and of the bytes of their bodies."""

    def __init__(self, heartbeat: Heartbeat, max_held: int, max_held_bytes: int) -> None:
        self._heartbeat = heartbeat
        self._max_held = max_held
        self._max_bytes = max_held_bytes
        self._queues: dict[EndpointKey, EndpointQueue] = {}
        self._held: dict[str, DeliveryJob] = {}
        self._claimed: set[str] = set()
        self._bodies: dict[str, tuple[bytes, list[int]]] = {}
        """Body and number of jobs by event id."""
        self._slow_held = 0
        self._bytes = 0
        self._body_bytes_mean = 1024.0
        self._reserved = 0
        self.stopping = False

    def __iter__(self) -> Iterator[EndpointQueue]:
        return iter(self._queues.values())

    @property
    def held(self) -> int:
        """Number of deliveries leased to this process, with those whose result is not committed yet."""
        return len(self._held)

    @property
    def jobs(self) -> Iterable[DeliveryJob]:
        """Every delivery leased to this process."""
        return self._held.values()

    def capacity(self, *, claimed: bool) -> int:
        """How many more deliveries this process may lease: by a claim, or new ones from the relay.

        Each kind gets at most three quarters of the whole: a backlog must not delay new events, and new events must not
        delay retries.
        """
        if self.stopping:
            return 0
        held = len(self._claimed) if claimed else len(self._held) - len(self._claimed)
        by_count = min(self._max_held - len(self._held), self._max_held - self._max_held // 4 - held)
        by_bytes = int((self._max_bytes - self._bytes) / max(self._body_bytes_mean, 1))
        return max(0, min(by_count, by_bytes) - self._reserved)

    def has_capacity(self, *, claimed: bool) -> bool:
        """Whether there is capacity for a batch that is worth a round trip. Claims are small (`workers.webhooks.claim`)."""
        return self.capacity(claimed=claimed) >= max(1, self._max_held // (32 if claimed else 8))

    def queue(self, limits: EndpointLimits) -> EndpointQueue:
        """The queue of an endpoint, created if missing. Limits of a newer endpoint version replace the present ones."""
        key = (limits.workspace_id, limits.id)
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = EndpointQueue(limits)
            self._rebalance(queue)
        elif queue.limits.version < limits.version:
            queue.limits = limits
            self._rebalance(queue)
        return queue

    def find(self, key: EndpointKey) -> EndpointQueue | None:
        """The queue of an endpoint; None if it has none."""
        return self._queues.get(key)

    def update_endpoint(self, endpoint: Endpoint) -> None:
        """Apply the limits of an endpoint that was just loaded."""
        workspace_id, id = endpoint.key
        self.queue(EndpointLimits(workspace_id, id, endpoint.version, endpoint.max_in_flight, endpoint.rate_per_s))

    def rebalance(self) -> None:
        """Compute all shares again after a change of the list of live workers."""
        for queue in self._queues.values():
            self._rebalance(queue)

    def _rebalance(self, queue: EndpointQueue) -> None:
        limits, heartbeat = queue.limits, self._heartbeat
        cap, me = limits.max_in_flight, heartbeat.worker_id
        queue.share = endpoint_capacity.share(cap, heartbeat.live_workers, me, limits.id, limits.rate_per_s)
        queue.rate_per_s = None
        if limits.rate_per_s is not None:
            queue.rate_per_s = endpoint_capacity.rate_share(
                limits.rate_per_s, cap, heartbeat.live_workers, me, limits.id
            )

    def reserve(self, limits: EndpointLimits, now_s: float, *, requested: bool = False) -> Placement:
        """Choose the placement of a delivery. LEASED reserves a place: `load` fills it, `cancel_reservation` frees it.

        A row that was `requested` while the queue had capacity gets its place, even if the measured latency has since
        reduced the capacity.
        """
        queue = self.queue(limits)
        if not requested and queue.share == 0:
            return Placement.PARKED
        if not requested and self.queue_capacity(queue, now_s) <= 0:
            queue.parked = True
            return Placement.PARKED
        queue.reserved += 1
        self._reserved += 1
        self._add_slow(queue, 1)
        return Placement.LEASED

    def queue_capacity(self, queue: EndpointQueue, now_s: float) -> int:
        """How many more deliveries the queue may hold; negative if it holds too many."""
        capacity = queue.depth(now_s) - queue.held
        if queue.slow and capacity > 0:
            capacity = min(capacity, self._max_held // 2 - self._slow_held)
        return capacity

    def _add_slow(self, queue: EndpointQueue, count: int) -> None:
        if queue.slow:
            self._slow_held += count

    def end_call(self, queue: EndpointQueue) -> None:
        """Free the place of a call that has ended."""
        queue.in_flight -= 1
        self._add_slow(queue, -1)

    def set_slow(self, queue: EndpointQueue, slow: bool) -> None:
        """Mark the queue as slow or as fast, and correct the count of the slow ones."""
        self._add_slow(queue, -queue.held)
        queue.slow = slow
        self._add_slow(queue, queue.held)

    def pop_oldest(self, queue: EndpointQueue) -> DeliveryJob:
        """Remove the oldest waiting job from a queue and return it. It stays leased until `release`."""
        self._add_slow(queue, -1)
        return queue.jobs.popleft()

    def clear(self, queue: EndpointQueue) -> list[DeliveryJob]:
        """Remove all waiting jobs from a queue and return them. They stay leased until `release`."""
        waiting = list(queue.jobs)
        queue.jobs.clear()
        self._add_slow(queue, -len(waiting))
        return waiting

    def reserve_batch(self, rows: int) -> None:
        """Reserve process capacity for the rows of a running claim; a negative count frees it after the claim."""
        self._reserved += rows

    def cancel_reservation(self, limits: EndpointLimits) -> None:
        """Free a reserved place."""
        queue = self.queue(limits)
        queue.reserved -= 1
        self._reserved -= 1
        self._add_slow(queue, -1)

    def load(self, limits: EndpointLimits, job: DeliveryJob, now_s: float, *, claimed: bool) -> EndpointQueue:
        """Append a job to its queue, in the place that was reserved for it. Returns the queue."""
        queue = self.queue(limits)
        queue.reserved -= 1
        self._reserved -= 1
        queue.used_s = now_s
        queue.jobs.append(job)
        self._held[job.id] = job
        if claimed:
            self._claimed.add(job.id)
        self._add_body(job)
        return queue

    def _add_body(self, job: DeliveryJob) -> None:
        size = len(job.body)
        shared = self._bodies.get(job.event_id)
        if shared is None:
            self._bodies[job.event_id] = (job.body, [1])
            self._bytes += size
        else:
            # A fan-out that is claimed in several batches keeps one body, and its bytes count once.
            job.body = shared[0]
            shared[1][0] += 1
        self._body_bytes_mean += 0.05 * (size - self._body_bytes_mean)

    def release(self, job: DeliveryJob) -> None:
        """Forget a delivery that this process no longer leases: its result is committed, or its lease released or lost."""
        if self._held.get(job.id) is not job:
            return
        del self._held[job.id]
        self._claimed.discard(job.id)
        body, users = self._bodies[job.event_id]
        users[0] -= 1
        if users[0] == 0:
            del self._bodies[job.event_id]
            self._bytes -= len(body)

    def remove_excess(self, queue: EndpointQueue, now_s: float) -> list[DeliveryJob]:
        """Remove the newest waiting jobs of a slow queue that exceed its depth, or the half of all slow queues; return them."""
        allowed = 0 if self._slow_held > self._max_held // 2 else queue.depth(now_s)
        excess = min(max(0, queue.held - allowed), len(queue.jobs))
        removed = [queue.jobs.pop() for _ in range(excess)]
        self._add_slow(queue, -len(removed))
        return removed

    def is_half_empty(self, queue: EndpointQueue, now_s: float) -> bool:
        """Whether the queue has drained to half of its depth, so that parked rows may be claimed for it."""
        capacity = self.queue_capacity(queue, now_s)
        return capacity > 0 and capacity * 2 >= queue.depth(now_s)

    def refillable(self, now_s: float) -> list[tuple[EndpointQueue, int]]:
        """Queues that have parked rows and have drained to half, and how many rows may be claimed for each."""
        return [
            (queue, self.queue_capacity(queue, now_s))
            for queue in self._queues.values()
            if queue.parked and queue.share and self.is_half_empty(queue, now_s)
        ]

    def with_backlog(self, now_s: float) -> list[tuple[EndpointQueue, int]]:
        """Queues with waiting or parked rows, and queues that other workers serve; with how many more rows each may hold."""
        return [
            (queue, max(0, self.queue_capacity(queue, now_s)) if queue.share else 0)
            for queue in self._queues.values()
            if queue.jobs or queue.parked or not queue.share
        ]

    def evict_idle(self, now_s: float) -> None:
        """Drop empty queues that were not used for ten minutes."""
        idle = [
            key
            for key, queue in self._queues.items()
            if not queue.held and not queue.parked and now_s - queue.used_s > _IDLE_S
        ]
        for key in idle:
            del self._queues[key]
