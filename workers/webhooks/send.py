"""The sender: takes deliveries from the lanes, signs, posts, and hands on what came of it.

A call starts when its lane has a free place, its rate allows it, the process has a call to spare for lanes of its kind
(fast or slow), this turn of the event loop has not started too many, and the lease still holds. Each place is one
coroutine that goes on with the lane's next delivery.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import structlog

from policies.verdict import judge
from spine.kernel.http_client import HttpClient
from spine.kernel.metrics import first_byte, lateness_seconds
from workers.webhooks.endpoint_cache import Endpoint, EndpointCache
from workers.webhooks.endpoint_queues import SLOW_S, EndpointQueue, EndpointQueues
from workers.webhooks.jobs import AttemptResult, DeliveryJob, DeliveryResult, Discarded, Placement

STARTS_A_TURN: Final = 8
"""Calls that start in one turn of the event loop: a backlog must not make a turn long, for all that is new waits for turns."""
STARTS_A_PRIORITY_TURN: Final = 2
"""The same in haste; as many more as are missing to a usual turn may start for what the relay has just brought."""
PRIORITY_S: Final = 0.1
"""How long haste lasts: longer than an event takes, so that a stream of them is never without."""
_OUT_OF_SOCKETS_PAUSE_S: Final = 1.0
_UNREADABLE_PAUSE_S: Final = 30.0

_log = structlog.get_logger(__name__)


class _Waiting:
    """Lanes that wait for a call: first those that have none under way, then the others, each kind in turn.

    So an endpoint's first event does not wait a round behind the lanes that serve a backlog. A lane that others overtake
    comes to the first kind as soon as its own calls have ended.
    """

    __slots__ = ("_busy", "_idle")

    def __init__(self) -> None:
        self._idle: dict[EndpointQueue, None] = {}
        self._busy: dict[EndpointQueue, None] = {}

    def __bool__(self) -> bool:
        return bool(self._idle or self._busy)

    def add(self, queue: EndpointQueue) -> None:
        if queue.in_flight:
            self._busy[queue] = None
        else:
            self._busy.pop(queue, None)
            self._idle[queue] = None

    def pop(self) -> EndpointQueue:
        waiting = self._idle or self._busy
        queue = next(iter(waiting))
        del waiting[queue]
        return queue

    def remove(self, queue: EndpointQueue) -> bool:
        """Whether it waited."""
        waited = queue in self._idle or queue in self._busy
        self._idle.pop(queue, None)
        self._busy.pop(queue, None)
        return waited


class Sender:
    """Sends what the lanes hold.

    `record` takes results, `release` what goes another way; `drained` is told of room for what is parked behind a lane.
    """

    def __init__(
        self,
        http_client: HttpClient,
        queues: EndpointQueues,
        max_in_flight: int,
        record: Callable[[DeliveryResult], None],
        release: Callable[[DeliveryJob, Placement], None],
        drained: Callable[[], None],
    ) -> None:
        self._http_client = http_client
        self._queues = queues
        self._max = max_in_flight
        self._record = record
        self._release = release
        self._drained = drained
        self._in_flight = {True: 0, False: 0}
        self._waiting = {True: _Waiting(), False: _Waiting()}
        self._calls: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._priority_ends_s = 0.0
        self._starts_left = STARTS_A_TURN
        self._new_starts_left = 0
        self._turn_begun = False
        self._stopping = False
        self.cache: EndpointCache

    @property
    def in_flight(self) -> int:
        """Calls under way."""
        return self._in_flight[True] + self._in_flight[False]

    def pump(self, queue: EndpointQueue) -> None:
        """Start what may start in this lane."""
        while (job := self._next(queue)) is not None:
            self._start(queue, job)

    def start_new(self, queue: EndpointQueue) -> None:
        """`pump` a lane that has just been given new work: in haste it need not wait for the next turn."""
        if self._starts_left <= 0 and self._new_starts_left > 0:
            self._new_starts_left -= 1
            self._starts_left = 1
        self.pump(queue)

    def prioritise_new(self) -> None:
        """Keep turns shorter still for `PRIORITY_S`: somebody with new work waits for them."""
        self._priority_ends_s = time.monotonic() + PRIORITY_S

    def _start(self, queue: EndpointQueue, job: DeliveryJob) -> None:
        call = self._loop.create_task(self._serve(queue, job))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    def endpoint_loaded(self, endpoint: Endpoint) -> None:
        """An endpoint was read anew: its lane goes on, or its deliveries go another way."""
        self._queues.update_endpoint(endpoint)
        queue = self._queues.find(endpoint.key)
        if queue is None or not queue.jobs:
            return
        if endpoint.deleted:
            for job in self._queues.clear(queue):
                self._record(Discarded(job, "endpoint_deleted"))
        elif endpoint.disabled:
            self._release_all(queue, Placement.HELD)
        elif endpoint.signer is None:
            # The operator's key is missing: nobody's attempts are used up, and it is looked at again in a while.
            queue.closed_until_s = time.monotonic() + _UNREADABLE_PAUSE_S
            queue.parked = True
            self._release_all(queue, Placement.PARKED)
        else:
            self.pump(queue)

    def rebalance(self, now_s: float) -> None:
        """See which lanes have become slow, and give back what they hold too much of. Called a few times a second."""
        for queue in self._queues:
            if not queue.slow and queue.oldest_s(now_s) > SLOW_S:
                self._set_slow(queue, True)
            if queue.jobs and (queue.slow or queue.share == 0):
                for job in self._queues.excess(queue, now_s):
                    queue.parked = True
                    self._release(job, Placement.PARKED)
        self._pump_waiting()

    async def drain(self, within_s: float) -> None:
        """Start nothing more, give back what waits, let the calls under way end within that time and cut off the rest."""
        self._stopping = True
        for queue in self._queues:
            self._release_all(queue, Placement.DUE)
        calls = set(self._calls)
        if calls:
            _, late = await asyncio.wait(calls, timeout=within_s)
            for call in late:
                call.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _release_all(self, queue: EndpointQueue, placement: Placement) -> None:
        for job in self._queues.clear(queue):
            self._release(job, placement)

    def _next(self, queue: EndpointQueue) -> DeliveryJob | None:
        """The delivery to be sent now in this lane, counted as in flight; None when none may start."""
        now_s = time.monotonic()
        while queue.jobs and queue.in_flight < queue.places and not self._stopping:
            if queue.jobs[0].lease_ends_s <= now_s:
                # Could not be renewed in time: somebody else may have it.
                lost = queue.jobs[0]
                self._queues.take(queue, [lost])
                self._queues.release(lost)
                continue
            if not self._may_start(queue, now_s):
                return None
            job = queue.jobs.popleft()
            queue.in_flight += 1
            queue.started_s[job] = now_s
            self._in_flight[queue.slow] += 1
            if not self._turn_begun:
                self._turn_begun = True
                self._loop.call_soon(self._next_turn)
            self._starts_left -= 1
            return job
        return None

    def _next_turn(self) -> None:
        self._turn_begun = False
        self._starts_left = STARTS_A_PRIORITY_TURN if time.monotonic() < self._priority_ends_s else STARTS_A_TURN
        self._new_starts_left = STARTS_A_TURN - self._starts_left
        self._pump_waiting()

    def _may_start(self, queue: EndpointQueue, now_s: float) -> bool:
        endpoint = self.cache.find(queue.key, now_s)
        if endpoint is None or not endpoint.may_be_called:
            return False  # `loaded` goes on from here
        queue.endpoint = endpoint
        if now_s < queue.next_start_s:
            self._call_later(queue, queue.next_start_s - now_s)
            return False
        if not self._has_call(queue.slow):
            self._waiting[queue.slow].add(queue)
            return False
        if queue.rate_per_s is not None:
            interval_s = 1 / queue.rate_per_s
            queue.next_start_s = max(queue.next_start_s, now_s - interval_s) + interval_s
        return True

    def _has_call(self, slow: bool) -> bool:
        if self._starts_left <= 0:
            return False
        half = max(1, self._max // 2)
        if slow:
            return self._in_flight[True] < half and self.in_flight < self._max
        # Lanes that have just become slow may hold more than half; that must not be taken off the others' half.
        return self._in_flight[False] < self._max - min(self._in_flight[True], self._max // 2)

    def _call_later(self, queue: EndpointQueue, delay_s: float) -> None:
        if not queue.timer:
            queue.timer = True
            self._loop.call_later(delay_s, self._timer_rang, queue)

    def _timer_rang(self, queue: EndpointQueue) -> None:
        queue.timer = False
        self.pump(queue)

    def _pump_waiting(self) -> None:
        for slow, waiting in self._waiting.items():
            while waiting and self._has_call(slow):
                queue = waiting.pop()
                job = self._next(queue)
                if job is None:
                    continue
                self._start(queue, job)
                if queue.jobs and queue.in_flight < queue.places:
                    waiting.add(queue)  # to the end: one call a round for each

    def _set_slow(self, queue: EndpointQueue, slow: bool) -> None:
        self._in_flight[queue.slow] -= queue.in_flight
        self._queues.set_slow(queue, slow)
        self._in_flight[slow] += queue.in_flight
        if self._waiting[not slow].remove(queue):
            self._waiting[slow].add(queue)

    async def _serve(self, queue: EndpointQueue, first: DeliveryJob) -> None:
        job: DeliveryJob | None = first
        while job is not None:
            await self._send(queue, job)
            if self._waiting[False] or self._waiting[True]:
                self._pump_waiting()
            job = self._next(queue)

    async def _send(self, queue: EndpointQueue, job: DeliveryJob) -> None:
        result: AttemptResult | None = None
        try:
            result = await self._attempt(queue, job)
        except OSError as error:
            _log.warning("no socket for a call", error=repr(error))
            queue.next_start_s = max(queue.next_start_s, time.monotonic() + _OUT_OF_SOCKETS_PAUSE_S)
        except Exception:
            _log.exception("a call broke", delivery_id=job.id)
            queue.next_start_s = max(queue.next_start_s, time.monotonic() + _OUT_OF_SOCKETS_PAUSE_S)
        finally:
            self._finish(queue, job, result)

    async def _attempt(self, queue: EndpointQueue, job: DeliveryJob) -> AttemptResult:
        endpoint = queue.endpoint
        assert endpoint is not None
        signer = endpoint.signer
        assert signer is not None
        timestamp_s = int(time.time())
        headers = {
            **endpoint.headers,
            "webhook-id": job.event_id,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": signer.sign(job.event_id, timestamp_s, job.body),
        }
        response = await self._http_client.post(endpoint.url, headers, job.body, https_required=endpoint.live)
        _note_lateness(job, response.started_at)
        return AttemptResult(
            job, response, judge(response.status, response.error, response.retry_after, datetime.now(UTC))
        )

    def _finish(self, queue: EndpointQueue, job: DeliveryJob, result: AttemptResult | None) -> None:
        self._in_flight[queue.slow] -= 1
        self._queues.call_ended(queue)
        del queue.started_s[job]
        if result is None:
            # No verdict on anybody: whoever comes first tries again.
            self._release(job, Placement.DUE)
            return
        queue.learn(result.response.duration_s)
        slow = (queue.mean_latency_s or 0) > SLOW_S or queue.oldest_s(time.monotonic()) > SLOW_S
        if slow != queue.slow:
            self._set_slow(queue, slow)
        self._record(result)
        if queue.parked and self._queues.drained(queue, time.monotonic()):
            self._drained()


def _note_lateness(job: DeliveryJob, started_at: datetime) -> None:
    if job.failures:
        if job.due_at is not None:
            lateness_seconds("retry").observe((started_at - job.due_at).total_seconds())
    elif job.series == 1:
        late_s = (started_at - job.accepted_at).total_seconds()
        first_byte(late_s)
        lateness_seconds("first").observe(late_s)
