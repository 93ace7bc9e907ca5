"""Lanes: one queue per endpoint, and the room there is in each and in the whole process.

A lane holds what its endpoint can take in about a second (`policies.endpoint_capacity.depth`); what does not fit is parked in
Postgres behind it. Lanes that are slow together get at most half of the process: of its calls in flight and of its
room. A lane of which nothing is known yet begins with a few calls. So receivers that hang cannot take what others need.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

from policies import endpoint_capacity as policy
from workers.heartbeat import Heartbeat
from workers.webhooks.endpoint_cache import Endpoint, EndpointKey
from workers.webhooks.jobs import DeliveryJob, EndpointLimits, Placement

SLOW_S: Final = 1.0
"""A lane whose answers take longer than this, or whose oldest call does, is slow."""
PROBE_CALLS: Final = 4
"""Calls at once to an endpoint that has not answered yet."""
_NEW_WEIGHT: Final = 0.2
_IDLE_S: Final = 600.0


class EndpointQueue:
    """The way to one endpoint. Only `EndpointQueues` and the sender change it."""

    __slots__ = (
        "closed_until_s",
        "endpoint",
        "in_flight",
        "jobs",
        "key",
        "limits",
        "mean_latency_s",
        "next_start_s",
        "parked",
        "rate_per_s",
        "reserved",
        "share",
        "slow",
        "started_s",
        "timer",
        "used_s",
    )  # fmt: skip

    def __init__(self, limits: EndpointLimits) -> None:
        self.key: EndpointKey = (limits.workspace_id, limits.id)
        self.limits = limits
        self.endpoint: Endpoint | None = None
        self.jobs: deque[DeliveryJob] = deque()
        self.started_s: dict[DeliveryJob, float] = {}
        self.in_flight = 0
        self.reserved = 0
        self.share = 0
        self.rate_per_s: float | None = None
        self.mean_latency_s: float | None = None
        self.slow = False
        self.parked = False
        """Whether rows wait in Postgres behind this lane."""
        self.next_start_s = 0.0
        self.closed_until_s = 0.0
        self.timer = False
        self.used_s = 0.0

    @property
    def held(self) -> int:
        """Deliveries in this lane: promised, waiting and in flight."""
        return len(self.jobs) + self.in_flight + self.reserved

    @property
    def places(self) -> int:
        """How many calls may be under way."""
        return self.share if self.mean_latency_s is not None else min(self.share, PROBE_CALLS)

    def depth(self, now_s: float) -> int:
        """How many it may hold."""
        if now_s < self.closed_until_s:
            return 0
        latency_s = self.mean_latency_s
        oldest_s = self.oldest_s(now_s)
        if latency_s is not None and oldest_s > SLOW_S:
            latency_s = max(latency_s, oldest_s)
        return policy.depth(self.share, latency_s, self.rate_per_s)

    def oldest_s(self, now_s: float) -> float:
        """For how long the oldest call has been under way; 0 without one."""
        for started_s in self.started_s.values():
            return now_s - started_s
        return 0.0

    def learn(self, latency_s: float) -> None:
        """Take the latency of one more answer into the mean."""
        mean_s = self.mean_latency_s
        self.mean_latency_s = latency_s if mean_s is None else mean_s + _NEW_WEIGHT * (latency_s - mean_s)


class EndpointQueues:
    """All lanes of this process, and its room."""

    def __init__(self, heartbeat: Heartbeat, max_held: int, max_held_bytes: int) -> None:
        self._heartbeat = heartbeat
        self._max_held = max_held
        self._max_bytes = max_held_bytes
        self._queues: dict[EndpointKey, EndpointQueue] = {}
        self._held: dict[str, DeliveryJob] = {}
        self._claimed: set[str] = set()
        self._bodies: dict[str, tuple[bytes, list[int]]] = {}
        self._slow_held = 0
        self._bytes = 0
        self._body_bytes_mean = 1024.0
        self._reserved = 0
        self.stopping = False

    def __iter__(self) -> Iterator[EndpointQueue]:
        return iter(self._queues.values())

    @property
    def held(self) -> int:
        """Deliveries leased to this process, those whose result is not committed included."""
        return len(self._held)

    @property
    def job(self) -> Iterable[DeliveryJob]:
        """Every delivery leased to this process."""
        return self._held.values()

    def room(self, *, claimed: bool) -> int:
        """How many more deliveries this process may lease: such as are claimed, or new ones from the relay.

        Neither kind gets more than three quarters of the whole: a backlog must not keep new events waiting, nor they the
        retries.
        """
        if self.stopping:
            return 0
        mine = len(self._claimed) if claimed else len(self._held) - len(self._claimed)
        by_count = min(self._max_held - len(self._held), self._max_held - self._max_held // 4 - mine)
        by_bytes = int((self._max_bytes - self._bytes) / max(self._body_bytes_mean, 1))
        return max(0, min(by_count, by_bytes) - self._reserved)

    def has_room(self, *, claimed: bool) -> bool:
        """Whether there is room for a batch that is worth its round trip; claims are small (`workers.webhooks.claim`)."""
        return self.room(claimed=claimed) >= max(1, self._max_held // (32 if claimed else 8))

    def queue(self, limits: EndpointLimits) -> EndpointQueue:
        """The lane of an endpoint, by its newest facts."""
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
        """The lane of an endpoint, where there is one."""
        return self._queues.get(key)

    def update_endpoint(self, endpoint: Endpoint) -> None:
        """Take up what was just read of an endpoint."""
        workspace_id, id = endpoint.key
        self.queue(EndpointLimits(workspace_id, id, endpoint.version, endpoint.max_in_flight, endpoint.rate_per_s))

    def rebalance(self) -> None:
        """Work out all shares anew: the list of live workers changed."""
        for queue in self._queues.values():
            self._rebalance(queue)

    def _rebalance(self, queue: EndpointQueue) -> None:
        limits, heartbeat = queue.limits, self._heartbeat
        cap, me = limits.max_in_flight, heartbeat.worker_id
        queue.share = policy.share(cap, heartbeat.live_workers, me, limits.id, limits.rate_per_s)
        queue.rate_per_s = None
        if limits.rate_per_s is not None:
            queue.rate_per_s = policy.rate_share(limits.rate_per_s, cap, heartbeat.live_workers, me, limits.id)

    def reserve(self, limits: EndpointLimits, now_s: float, *, asked: bool = False) -> Placement:
        """Which way a delivery goes; LEASED promises it a place, to be taken by `load` or given up by `cancel_reservation`.

        What was asked for when the lane had room gets its place, though the lane has learnt meanwhile that it is slower.
        """
        queue = self.queue(limits)
        if not asked and queue.share == 0:
            return Placement.PARKED
        if not asked and self.queue_room(queue, now_s) <= 0:
            queue.parked = True
            return Placement.PARKED
        queue.reserved += 1
        self._reserved += 1
        self._count(queue, 1)
        return Placement.LEASED

    def queue_room(self, queue: EndpointQueue, now_s: float) -> int:
        """How many more deliveries the lane may hold."""
        room = queue.depth(now_s) - queue.held
        if queue.slow and room > 0:
            room = min(room, self._max_held // 2 - self._slow_held)
        return room

    def _count(self, queue: EndpointQueue, rows: int) -> None:
        if queue.slow:
            self._slow_held += rows

    def call_ended(self, queue: EndpointQueue) -> None:
        """A call ended: its place in the lane is free again."""
        queue.in_flight -= 1
        self._count(queue, -1)

    def set_slow(self, queue: EndpointQueue, slow: bool) -> None:
        """Move the lane to the slow ones or to the others."""
        self._count(queue, -queue.held)
        queue.slow = slow
        self._count(queue, queue.held)

    def take(self, queue: EndpointQueue, job: list[DeliveryJob]) -> None:
        """Take deliveries out of a lane's queue that will not be sent from here."""
        for one in job:
            queue.jobs.remove(one)
        self._count(queue, -len(job))

    def clear(self, queue: EndpointQueue) -> list[DeliveryJob]:
        """Empty a lane's queue."""
        waiting = list(queue.jobs)
        queue.jobs.clear()
        self._count(queue, -len(waiting))
        return waiting

    def reserve_room(self, rows: int) -> None:
        """Count rows of a claim that is under way; `promise(-rows)` when it is done."""
        self._reserved += rows

    def cancel_reservation(self, limits: EndpointLimits) -> None:
        """Give up a reserved place."""
        queue = self.queue(limits)
        queue.reserved -= 1
        self._reserved -= 1
        self._count(queue, -1)

    def load(self, limits: EndpointLimits, job: DeliveryJob, now_s: float, *, claimed: bool) -> EndpointQueue:
        """Put a delivery into the place that was reserved for it."""
        queue = self.queue(limits)
        queue.reserved -= 1
        self._reserved -= 1
        queue.used_s = now_s
        queue.jobs.append(job)
        self._held[job.id] = job
        if claimed:
            self._claimed.add(job.id)
        self._count_bytes(job)
        return queue

    def _count_bytes(self, job: DeliveryJob) -> None:
        size = len(job.body)
        shared = self._bodies.get(job.event_id)
        if shared is None:
            self._bodies[job.event_id] = (job.body, [1])
            self._bytes += size
        else:
            # A fan-out, claimed in several batches, keeps one body; it weighs once.
            job.body = shared[0]
            shared[1][0] += 1
        self._body_bytes_mean += 0.05 * (size - self._body_bytes_mean)

    def release(self, job: DeliveryJob) -> None:
        """The delivery is no longer ours: recorded, given back or lost."""
        if self._held.get(job.id) is not job:
            return
        del self._held[job.id]
        self._claimed.discard(job.id)
        body, users = self._bodies[job.event_id]
        users[0] -= 1
        if users[0] == 0:
            del self._bodies[job.event_id]
            self._bytes -= len(body)

    def excess(self, queue: EndpointQueue, now_s: float) -> list[DeliveryJob]:
        """Take out of a slow lane's queue, from its end, what it holds too much of: by itself, or with the others."""
        allowed = 0 if self._slow_held > self._max_held // 2 else queue.depth(now_s)
        over = min(max(0, queue.held - allowed), len(queue.jobs))
        taken = [queue.jobs.pop() for _ in range(over)]
        self._count(queue, -len(taken))
        return taken

    def drained(self, queue: EndpointQueue, now_s: float) -> bool:
        """Whether the lane has drained to half, so that more may be claimed for it."""
        room = self.queue_room(queue, now_s)
        return room > 0 and room * 2 >= queue.depth(now_s)

    def refillable(self, now_s: float) -> list[tuple[EndpointQueue, int]]:
        """Lanes with parked rows behind them that have drained to half, and how many rows each may claim."""
        return [
            (queue, self.queue_room(queue, now_s))
            for queue in self._queues.values()
            if queue.parked and queue.share and self.drained(queue, now_s)
        ]

    def with_backlog(self, now_s: float) -> list[tuple[EndpointQueue, int]]:
        """Lanes where something waits, here or parked, and those that others serve: how many more rows each may hold."""
        return [
            (queue, max(0, self.queue_room(queue, now_s)) if queue.share else 0)
            for queue in self._queues.values()
            if queue.jobs or queue.parked or not queue.share
        ]

    def evict_idle(self, now_s: float) -> None:
        """Drop lanes that nothing has gone through for ten minutes."""
        idle = [
            key
            for key, queue in self._queues.items()
            if not queue.held and not queue.parked and now_s - queue.used_s > _IDLE_S
        ]
        for key in idle:
            del self._queues[key]
