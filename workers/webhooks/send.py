"""The sender: starts the calls of the endpoint queues and passes on their results.

A call starts if all of these hold: its queue has fewer calls in flight than it may have, its rate limit allows it, the
process has a free call for its workspace and for queues of its kind (`call_slots`), this turn of the event loop has
starts left, and the lease has not expired. Each concurrent call is one coroutine, which continues with the next job of
the queue. The lease is looked at again when the connection stands, before the request is written.
"""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from spine.kernel.http_client import HttpClient, NotSentError
from workers.webhooks.attempt import attempt
from workers.webhooks.call_slots import CallSlots
from workers.webhooks.endpoint_cache import Endpoint, EndpointCache
from workers.webhooks.endpoint_queue import SLOW_S, EndpointQueue
from workers.webhooks.endpoint_queues import EndpointQueues
from workers.webhooks.jobs import AttemptResult, DeliveryJob, DeliveryResult, Discarded, Placement
from workers.webhooks.start_order import StartOrder

STARTS_PER_TURN: Final = 8
"""Calls that start in one turn of the event loop. A backlog must not make turns long, because new work waits for turns."""
STARTS_PER_PRIORITY_TURN: Final = 2
"""The same while new work has priority. The relay's new deliveries may start the rest of `STARTS_PER_TURN`."""
PRIORITY_S: Final = 0.1
"""Duration of the priority. It is longer than an event takes, so a stream of events keeps it."""
_RETRY_PAUSE_S: Final = 1.0
"""Pause of a queue after a call that could not be made, for example for lack of sockets."""
_UNREADABLE_PAUSE_S: Final = 30.0

_log = structlog.get_logger(__name__)


class Sender:
    """Sends the jobs of the endpoint queues. Calls `on_half_empty` when a queue with parked rows has drained to half."""

    def __init__(
        self,
        http_client: HttpClient,
        queues: EndpointQueues,
        max_in_flight: int,
        record: Callable[[DeliveryResult], None],
        release: Callable[[DeliveryJob, Placement], None],
        on_half_empty: Callable[[EndpointQueue], None],
    ) -> None:
        self._http_client = http_client
        self._queues = queues
        self._slots = CallSlots(max_in_flight)
        self._record = record
        self._release = release
        self._on_half_empty = on_half_empty
        self._waiting = {True: StartOrder(), False: StartOrder()}
        self._starts = tuple((self._waiting[slow], partial(self._slots.has_free, slow=slow)) for slow in (True, False))
        """The queues that wait, the slow ones and the others, each with whether a workspace has a free call of their kind."""
        self._calls: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._priority_ends_s = 0.0
        self._starts_left = STARTS_PER_TURN
        self._new_starts_left = 0
        self._turn_begun = False
        self._stopping = False
        self.cache: EndpointCache

    @property
    def in_flight(self) -> int:
        """Number of calls in flight."""
        return self._slots.in_flight

    def start_ready(self, queue: EndpointQueue) -> None:
        """Start every call of the queue that may start now."""
        while (job := self._next_job(queue)) is not None:
            self._start(queue, job)

    def start_new(self, queue: EndpointQueue) -> None:
        """Start the calls of a queue that has new work. During the priority it need not wait for the next turn."""
        if self._starts_left <= 0 and self._new_starts_left > 0:
            self._new_starts_left -= 1
            self._starts_left = 1
        self.start_ready(queue)

    def prioritise_new(self) -> None:
        """Give new work priority for `PRIORITY_S`: fewer starts in each turn, so that turns are shorter."""
        self._priority_ends_s = time.monotonic() + PRIORITY_S

    def _start(self, queue: EndpointQueue, job: DeliveryJob) -> None:
        call = self._loop.create_task(self._send_jobs(queue, job))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    def on_endpoint_loaded(self, endpoint: Endpoint) -> None:
        """Apply an endpoint that was just loaded: start the calls of its queue, or release or discard its jobs."""
        queue = self._queues.queue(endpoint.limits)
        if not queue.jobs:
            return
        if endpoint.deleted:
            for job in self._queues.clear(queue):
                self._record(Discarded(job, "endpoint_deleted"))
        elif endpoint.disabled:
            self._release_all(queue, Placement.HELD)
        elif endpoint.signer is None:
            # The operator's key is missing: no attempt is counted, and the queue opens again after a pause.
            queue.closed_until_s = time.monotonic() + _UNREADABLE_PAUSE_S
            queue.parked = True
            self._release_all(queue, Placement.PARKED)
        else:
            self.start_ready(queue)

    def rebalance(self, now_s: float) -> None:
        """Mark queues that have become slow, and park the jobs that they hold in excess. Called a few times per second.

        Looks at the active queues only.
        """
        for queue in self._queues:
            if not queue.slow and queue.oldest_call_s(now_s) > SLOW_S:
                self._set_slow(queue, True)
            if queue.jobs and (queue.slow or queue.share == 0):
                for job in self._queues.remove_excess(queue, now_s):
                    queue.parked = True
                    self._release(job, Placement.PARKED)
        self._start_waiting()

    async def drain(self, timeout_s: float) -> None:
        """Start no more calls, release waiting jobs, wait for the calls in flight, and cancel them after the timeout."""
        self._stopping = True
        for queue in self._queues:
            self._release_all(queue, Placement.DUE)
        if self._calls:
            _, late = await asyncio.wait(self._calls, timeout=timeout_s)
            for call in late:
                call.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _release_all(self, queue: EndpointQueue, placement: Placement) -> None:
        for job in self._queues.clear(queue):
            self._release(job, placement)

    def _next_job(self, queue: EndpointQueue, *, has_call: bool = False) -> DeliveryJob | None:
        """Take the next job and count it as in flight; None if no call may start. `has_call`: a call and a start are free."""
        now_s = time.monotonic()
        while queue.jobs and queue.in_flight < queue.max_calls and not self._stopping:
            if queue.jobs[0].lease_ends_s <= now_s:
                # The lease was not renewed in time, so another worker may have the row.
                self._queues.release(self._queues.pop_oldest(queue))
                continue
            if not self._may_start(queue, now_s, has_call=has_call):
                return None
            job = queue.jobs.popleft()
            queue.in_flight += 1
            queue.started_s[job] = now_s
            self._slots.take(queue)
            if not self._turn_begun:
                self._turn_begun = True
                self._loop.call_soon(self._begin_turn)
            self._starts_left -= 1
            return job
        return None

    def _begin_turn(self) -> None:
        self._turn_begun = False
        self._starts_left = STARTS_PER_PRIORITY_TURN if time.monotonic() < self._priority_ends_s else STARTS_PER_TURN
        self._new_starts_left = STARTS_PER_TURN - self._starts_left
        self._start_waiting()

    def _may_start(self, queue: EndpointQueue, now_s: float, *, has_call: bool) -> bool:
        endpoint = self.cache.find(queue.key, now_s)
        if endpoint is None or not endpoint.is_callable:
            return False  # `on_endpoint_loaded` continues
        queue.endpoint = endpoint
        if now_s < queue.next_start_s:
            self._start_later(queue, queue.next_start_s - now_s)
            return False
        if not has_call and (self._starts_left <= 0 or not self._slots.has_free(queue.workspace, slow=queue.slow)):
            self._waiting[queue.slow].add(queue)
            return False
        if queue.rate_per_s is not None:
            interval_s = 1 / queue.rate_per_s
            queue.next_start_s = max(queue.next_start_s, now_s - interval_s) + interval_s
        return True

    def _start_later(self, queue: EndpointQueue, delay_s: float) -> None:
        if not queue.timer_set:
            queue.timer_set = True
            self._loop.call_later(delay_s, self._on_timer, queue)

    def _on_timer(self, queue: EndpointQueue) -> None:
        queue.timer_set = False
        self.start_ready(queue)

    def _start_waiting(self) -> None:
        for waiting, may_start in self._starts:
            while self._starts_left > 0 and waiting and (queue := waiting.pop(may_start)) is not None:
                if (job := self._next_job(queue, has_call=True)) is None:
                    continue
                self._start(queue, job)
                if queue.jobs and queue.in_flight < queue.max_calls:
                    waiting.add(queue)  # at the end: each queue gets one call per round

    def _set_slow(self, queue: EndpointQueue, slow: bool) -> None:
        waited = self._waiting[queue.slow].remove(queue)
        self._slots.move(queue, slow=slow)
        self._queues.set_slow(queue, slow)
        if waited:
            self._waiting[slow].add(queue)

    async def _send_jobs(self, queue: EndpointQueue, job: DeliveryJob | None) -> None:
        while job is not None:
            await self._send(queue, job)
            if self._starts_left > 0:
                self._start_waiting()
            job = self._next_job(queue)

    async def _send(self, queue: EndpointQueue, job: DeliveryJob) -> None:
        result: AttemptResult | None = None
        try:
            endpoint = queue.endpoint
            assert endpoint is not None
            result = await attempt(self._http_client, endpoint, job)
        except NotSentError:
            pass  # the lease was lost: another worker may have the row, and no attempt is counted
        except OSError as error:
            _log.warning("no socket for a call", error=repr(error))
            queue.next_start_s = max(queue.next_start_s, time.monotonic() + _RETRY_PAUSE_S)
        except Exception:
            _log.exception("call failed", delivery_id=job.id)
            queue.next_start_s = max(queue.next_start_s, time.monotonic() + _RETRY_PAUSE_S)
        finally:
            self._finish(queue, job, result)

    def _finish(self, queue: EndpointQueue, job: DeliveryJob, result: AttemptResult | None) -> None:
        self._slots.give_back(queue)
        self._queues.end_call(queue)
        del queue.started_s[job]
        if result is None:
            # Without a response no attempt is counted. The row is due at once, for any worker.
            self._release(job, Placement.DUE)
            return
        queue.record_latency(result.response.duration_s)
        slow = (queue.mean_latency_s or 0) > SLOW_S or queue.oldest_call_s(time.monotonic()) > SLOW_S
        if slow != queue.slow:
            self._set_slow(queue, slow)
        self._record(result)
        if queue.parked and self._queues.is_half_empty(queue, time.monotonic()):
            self._on_half_empty(queue)
