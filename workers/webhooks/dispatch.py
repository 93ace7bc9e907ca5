"""The dispatcher: the pipeline that delivers webhooks. It runs in every worker; wakeups only make it query earlier.

    wakeup "relay"       ─► Relay.relay_batch      outbox ─► deliveries, leased here if there is capacity ─┐
    wakeup "deliver"     ─► Claimer.claim_due      due rows: retries, replays, rows of dead workers ───────┤
    queue drains to half ─► Claimer.claim_parked   rows parked behind the queue ───────────────────────────┤
                                                                                                           ▼
                            Recorder ◄─ results ─ Sender ◄─ EndpointQueues (one queue per endpoint, shared limits)
                               └─► Postgres, then wakeups for the next due times

Promised: no row leaves the queue unless delivered or dead; every lease expires by itself; a step that fails is repeated.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from spine.kernel.metrics import observe_sender
from spine.kernel.wakeups import WakeupKind
from workers.pipeline import WorkerContext, run_forever, wait_for_wakeup
from workers.webhooks.claim import Claimer
from workers.webhooks.endpoint_cache import EndpointCache, EndpointKey
from workers.webhooks.endpoint_queue import EndpointQueue
from workers.webhooks.endpoint_queues import EndpointQueues
from workers.webhooks.jobs import DeliveryJob, Placement
from workers.webhooks.leases import Leases
from workers.webhooks.record import Recorder
from workers.webhooks.relay import Relay
from workers.webhooks.send import Sender

PARKED_POLL_S: Final = 0.2
"""Maximum wait of a row that was parked by a worker without a share of its endpoint."""
REBALANCE_S: Final = 0.1
_FULL_PAUSE_S: Final = 0.004
_CLAIMS_HELD: Final = 32
"""A claim waits until this part of what the process may hold is free: claims are small, but worth a round trip."""
_STUCK_MAX_S: Final = 0.05
_FULL_MAX_S: Final = 0.25
_FULL_MIN_S: Final = 0.01
"""How long the relay waits for room at least. Wakeups may be those of other workers' batches."""
_EVICT_S: Final = 60.0


class Dispatcher:
    """The delivery pipeline of one process."""

    def __init__(self, context: WorkerContext) -> None:
        work, pool = context.work, context.pool
        self._context = context
        self.queues = EndpointQueues(context.heartbeat, work.max_held, work.max_held_bytes)
        self.leases = Leases(pool, self.queues, context.wakeups, context.worker_id, work.lease_s)
        clock = context.heartbeat.clock
        self.recorder = Recorder(pool, context.wakeups, clock, work.commit_gap_s, self.queues.release, self._on_gone)
        self._full_since: tuple[float, int] | None = None
        """Since when the relay has waited for room, and how many deliveries were held then."""
        self._worth_a_claim = max(1, work.max_held // _CLAIMS_HELD)
        self._wake_relay = asyncio.Event()
        self._wake_beside = asyncio.Event()
        self._wake_due = asyncio.Event()
        self._wake_parked = asyncio.Event()
        self._wake_flush = asyncio.Event()
        self.sender = Sender(
            context.http_client,
            self.queues,
            work.max_in_flight,
            self.recorder.put,
            self._release,
            self._on_half_empty,
        )
        self.cache = EndpointCache(pool, context.vault, self.sender.on_endpoint_loaded)
        self.sender.cache = self.cache
        self.relay = Relay(pool, self.queues, context.wakeups, work, context.heartbeat, self.sender.start_new)
        self.claimer = Claimer(pool, self.queues, work, context.heartbeat, self.recorder.put, self.sender.start_ready)

    def on_wakeup(self, kind: WakeupKind) -> None:
        """Query soon for the work of this kind."""
        if kind == "relay":
            self._wake_relay.set()
            if self.relay.has_backlog:
                self._wake_beside.set()
        elif kind == "deliver":
            self._wake_due.set()
        if kind in ("relay", "send") and not self.relay.has_backlog:
            # New work needs several round trips before its call. With a backlog of events, priority would gain nothing.
            self.sender.prioritise_new()

    async def run(self) -> None:
        """Run all steps until cancelled."""
        self._wake_relay.set()
        self._wake_due.set()
        steps: dict[str, Callable[[], Awaitable[None]]] = {
            "relay": self._relay,
            "relay beside a backlog": self._relay_beside,
            "claim due": self._claim_due,
            "claim parked": self._claim_parked,
            "find parked": self._find_parked,
            "load endpoints": self.cache.step,
            "flush leases": self._flush_leases,
            "renew leases": self._renew_leases,
            "rebalance": self._rebalance,
            "evict": self._evict,
        }
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self.recorder.run())
            for name, step in steps.items():
                loops.create_task(run_forever(name, step))

    async def drain(self, timeout_s: float) -> None:
        """Stop claiming, wait for the calls in flight, record their results, and release all other leases."""
        until_s = time.monotonic() + timeout_s
        self.queues.stopping = True
        await self.sender.drain(timeout_s)
        await self.leases.flush()
        await self.recorder.drain(max(1.0, until_s - time.monotonic()))
        await self.leases.flush()

    def _release(self, job: DeliveryJob, placement: Placement) -> None:
        self.leases.release(job, placement)
        self._wake_flush.set()

    def _on_half_empty(self, queue: EndpointQueue) -> None:
        self.claimer.refill.add(queue)
        self._wake_parked.set()

    def _on_gone(self, key: EndpointKey) -> None:
        self.cache.invalidate(key)

    async def _wait(self, wakeup: asyncio.Event) -> None:
        await wait_for_wakeup(wakeup, self._context.work.sweep_s, self._context.wakeup_status)

    async def _relay(self) -> None:
        await self._wait(self._wake_relay)
        more = True
        try:
            while more and not self.queues.stopping:
                as_due = await self._wait_for_room()
                self._wake_relay.clear()
                more = await self.relay.relay_batch(as_due=as_due)
        except BaseException:
            self._wake_relay.set()
            raise

    async def _relay_beside(self) -> None:
        await self._wake_beside.wait()
        self._wake_beside.clear()
        if not self.queues.stopping and await self.relay.relay_beside():
            self.sender.prioritise_new()

    async def _wait_for_room(self) -> bool:
        """Wait until new deliveries can be leased as they are written, or until a wakeup tells of new events.

        Returns True after `_FULL_MAX_S`, or after `_STUCK_MAX_S` if no delivery has ended: they are written as due then. Usually the
        wait is short, and leasing them costs less than a claim. But deliveries that hang must not keep events in the outbox.
        """
        start_s = time.monotonic()
        since_s, held = self._full_since or (start_s, self.queues.held)
        self._full_since = None
        while self.relay.waits_for_room and not self.queues.stopping:
            now_s = time.monotonic()
            if now_s >= since_s + (_FULL_MAX_S if self.queues.held < held else _STUCK_MAX_S):
                return True
            if self._wake_relay.is_set() and now_s >= start_s + _FULL_MIN_S:
                self._full_since = since_s, held
                break
            await asyncio.sleep(_FULL_PAUSE_S)
        return False

    async def _claim_due(self) -> None:
        await self._wait(self._wake_due)
        more = True
        while more and not self.queues.stopping:
            if self.queues.capacity(claimed=True) >= self._worth_a_claim:
                more = await self.claimer.claim_due()
                await asyncio.sleep(self.claimer.pause_s)
            else:
                await asyncio.sleep(_FULL_PAUSE_S)

    async def _claim_parked(self) -> None:
        await self._wake_parked.wait()
        self._wake_parked.clear()
        while not self.queues.stopping and await self.claimer.claim_parked():
            pass

    async def _find_parked(self) -> None:
        await asyncio.sleep(PARKED_POLL_S)
        if not self.queues.stopping and await self.claimer.find_parked():
            self._wake_parked.set()

    async def _flush_leases(self) -> None:
        await self._wake_flush.wait()
        self._wake_flush.clear()
        try:
            await self.leases.flush()
        except BaseException:
            self._wake_flush.set()
            raise

    async def _renew_leases(self) -> None:
        await asyncio.sleep(self._context.work.lease_s / 3)
        await self.leases.renew()

    async def _rebalance(self) -> None:
        await asyncio.sleep(REBALANCE_S)
        now_s = time.monotonic()
        heartbeat = self._context.heartbeat
        if heartbeat.changed.is_set():
            heartbeat.changed.clear()
            self.queues.rebalance()
            for queue in self.queues:
                self.sender.start_ready(queue)
        self.sender.rebalance(now_s)
        observe_sender(self.sender.in_flight, self.queues.held - self.sender.in_flight)

    async def _evict(self) -> None:
        await asyncio.sleep(_EVICT_S)
        self.queues.evict_idle(time.monotonic())
        self.cache.evict_old(time.monotonic())
