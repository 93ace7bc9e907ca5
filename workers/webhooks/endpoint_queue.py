"""The queue of one endpoint: the jobs that wait for it, the calls in flight, and its measured latency."""

from collections import deque
from typing import Final

from policies import endpoint_capacity
from workers.heartbeat import Heartbeat
from workers.webhooks.endpoint_cache import Endpoint, EndpointKey
from workers.webhooks.jobs import DeliveryJob, EndpointLimits
from workers.webhooks.workspace_use import WorkspaceUse

SLOW_S: Final = 1.0
"""A queue is slow if its mean latency, or the age of its oldest call in flight, is more than this many seconds."""
PROBE_CALLS: Final = 4
"""Maximum number of concurrent calls to an endpoint that has not responded yet."""
_LATENCY_WEIGHT: Final = 0.2
"""Weight of the newest latency in the moving average."""


class EndpointQueue:
    """The jobs of one endpoint in this process. Only `EndpointQueues` and `Sender` change it."""

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
        "timer_set",
        "used_s",
        "workers",
        "workspace",
    )

    def __init__(self, limits: EndpointLimits, workspace: WorkspaceUse) -> None:
        self.key: EndpointKey = (limits.workspace_id, limits.id)
        self.limits = limits
        self.workspace = workspace
        self.workers: frozenset[str] = frozenset()
        """The live workers for which the share was computed."""
        self.endpoint: Endpoint | None = None
        self.jobs: deque[DeliveryJob] = deque()
        self.started_s: dict[DeliveryJob, float] = {}
        """Start time of each call in flight, the oldest first."""
        self.in_flight = 0
        self.reserved = 0
        self.share = 0
        """This worker's share of the endpoint's `max_in_flight`; 0 if other workers serve the endpoint."""
        self.rate_per_s: float | None = None
        self.mean_latency_s: float | None = None
        self.slow = False
        self.parked = False
        """Whether rows are parked in Postgres behind this queue."""
        self.next_start_s = 0.0
        self.closed_until_s = 0.0
        self.timer_set = False
        self.used_s = 0.0

    @property
    def held(self) -> int:
        """Number of deliveries in this queue: reserved, waiting and in flight."""
        return len(self.jobs) + self.in_flight + self.reserved

    @property
    def max_calls(self) -> int:
        """Maximum number of concurrent calls of this worker to the endpoint."""
        return self.share if self.mean_latency_s is not None else min(self.share, PROBE_CALLS)

    def set_share(self, heartbeat: Heartbeat) -> None:
        """Compute this worker's share of the endpoint's calls and rate, for the present list of live workers."""
        limits, workers, me = self.limits, heartbeat.live_workers, heartbeat.worker_id
        cap, rate_per_s = limits.max_in_flight, limits.rate_per_s
        self.workers = workers
        self.share = endpoint_capacity.share(cap, workers, me, limits.id, rate_per_s)
        self.rate_per_s = None
        if rate_per_s is not None:
            self.rate_per_s = endpoint_capacity.rate_share(rate_per_s, cap, workers, me, limits.id)

    def depth(self, now_s: float) -> int:
        """Maximum number of deliveries that this queue may hold (`policies.endpoint_capacity.depth`)."""
        if now_s < self.closed_until_s:
            return 0
        latency_s = self.mean_latency_s
        oldest_s = self.oldest_call_s(now_s)
        if latency_s is not None and oldest_s > SLOW_S:
            latency_s = max(latency_s, oldest_s)
        return endpoint_capacity.depth(self.share, latency_s, self.rate_per_s)

    def oldest_call_s(self, now_s: float) -> float:
        """Age in seconds of the oldest call in flight; 0 without calls."""
        for started_s in self.started_s.values():
            return now_s - started_s
        return 0.0

    def record_latency(self, latency_s: float) -> None:
        """Add one latency to the moving average."""
        mean_s = self.mean_latency_s
        self.mean_latency_s = latency_s if mean_s is None else mean_s + _LATENCY_WEIGHT * (latency_s - mean_s)
