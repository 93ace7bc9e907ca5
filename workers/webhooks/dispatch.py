"""The dispatcher: webhook delivery as a line of work. Resident in every worker; bells only wake it.

    bell "relay"   ─► Relay.look         outbox ─► deliveries, leased here where there is room ─┐
    bell "deliver" ─► Claims.claim_due   due rows: retries, replays, what a dead worker left ───┤
    a lane drains  ─► Claims.claim_parked  rows parked behind it ───────────────────────────────┤
                                                                                                ▼
                      Recorder ◄── results ── Sender ◄── Lanes (one queue per endpoint, shared caps)
                         └─► Postgres, then bells for the next due times

Promised: no row leaves the queue but delivered or dead; every lease ends by itself; a loop that fails goes on.
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
from workers.webhooks.endpoint_queues import EndpointQueues
from workers.webhooks.jobs import DeliveryJob, Placement
from workers.webhooks.leases import Leases
from workers.webhooks.record import Recorder
from workers.webhooks.relay import Relay
from workers.webhooks.send import Sender

PARKED_POLL_S: Final = 0.2
"""How long a row may wait that a worker without a share of its endpoint has parked."""
REBALANCE_S: Final = 0.1
_FULL_PAUSE_S: Final = 0.004
_EVICT_S: Final = 60.0


class Dispatcher:
    """The delivery line of one process."""

    def __init__(self, context: WorkerContext) -> None:
        work, pool = context.work, context.pool
        self._context = context
        self.queues = EndpointQueues(context.heartbeat, work.max_held, work.max_held_bytes)
        self.leases = Leases(pool, self.queues, context.wakeups, context.worker_id, work.lease_s)
        self.recorder = Recorder(pool, context.wakeups, work.commit_gap_s, self.queues.release, self._on_gone)
        self.sender = Sender(
            context.http_client, self.queues, work.max_in_flight, self.recorder.put, self._release, self._drained
        )
        self.cache = EndpointCache(pool, context.vault, self.sender.endpoint_loaded)
        self.sender.cache = self.cache
        self.relay = Relay(pool, self.queues, context.wakeups, work, context.worker_id, self.sender.start_new)
        self.claims = Claimer(
            pool, self.queues, work, context.worker_id, self.recorder.put, self._release, self.sender.pump
        )
        self._wake_relay = asyncio.Event()
        self._wake_due = asyncio.Event()
        self._wake_parked = asyncio.Event()
        self._wake_flush = asyncio.Event()

    def on_wakeup(self, kind: WakeupKind) -> None:
        """A bell rang."""
        if kind == "relay":
            self._wake_relay.set()
        elif kind == "deliver":
            self._wake_due.set()
        if kind in ("relay", "send") and not self.relay.behind:
            # What is new has several round trips before it; with a relay that is behind, haste would win nothing.
            self.sender.prioritise_new()

    async def run(self) -> None:
        """Work until cancelled."""
        self._wake_relay.set()
        self._wake_due.set()
        steps: dict[str, Callable[[], Awaitable[None]]] = {
            "relay": self._relay_step,
            "due": self._due_step,
            "parked": self._parked_step,
            "find parked": self._find_step,
            "endpoints": self.cache.step,
            "leases": self._flush_step,
            "renew": self._renew_step,
            "look around": self._rebalance_step,
            "forget": self._evict_step,
        }
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self.recorder.run())
            for name, step in steps.items():
                loops.create_task(run_forever(name, step))

    async def drain(self, within_s: float) -> None:
        """Stop claiming, let calls end, record, give the rest back."""
        until_s = time.monotonic() + within_s
        self.queues.stopping = True
        await self.sender.drain(within_s)
        await self.leases.flush()
        await self.recorder.drain(max(1.0, until_s - time.monotonic()))
        await self.leases.flush()

    def _release(self, job: DeliveryJob, placement: Placement) -> None:
        self.leases.release(job, placement)
        self._wake_flush.set()

    def _drained(self) -> None:
        self._wake_parked.set()

    def _on_gone(self, key: EndpointKey) -> None:
        self.cache.invalidate(key)

    async def _wait(self, wakeups: asyncio.Event) -> None:
        await wait_for_wakeup(wakeups, self._context.work.sweep_s, self._context.wakeup_status)

    async def _relay_step(self) -> None:
        await self._wait(self._wake_relay)
        more = True
        try:
            while more and not self.queues.stopping:
                if self.queues.has_room(claimed=False):
                    more = await self.relay.relay_batch()
                else:
                    await asyncio.sleep(_FULL_PAUSE_S)
        except BaseException:
            self._wake_relay.set()
            raise

    async def _due_step(self) -> None:
        await self._wait(self._wake_due)
        more = True
        while more and not self.queues.stopping:
            if self.queues.has_room(claimed=True):
                more = await self.claims.claim_due()
                await asyncio.sleep(self.claims.rest_s)
            else:
                await asyncio.sleep(_FULL_PAUSE_S)

    async def _parked_step(self) -> None:
        await self._wake_parked.wait()
        self._wake_parked.clear()
        await self.claims.claim_parked()

    async def _find_step(self) -> None:
        await asyncio.sleep(PARKED_POLL_S)
        if not self.queues.stopping and await self.claims.find_parked():
            self._wake_parked.set()

    async def _flush_step(self) -> None:
        await self._wake_flush.wait()
        self._wake_flush.clear()
        try:
            await self.leases.flush()
        except BaseException:
            self._wake_flush.set()
            raise

    async def _renew_step(self) -> None:
        await asyncio.sleep(self._context.work.lease_s / 3)
        await self.leases.renew()

    async def _rebalance_step(self) -> None:
        await asyncio.sleep(REBALANCE_S)
        now_s = time.monotonic()
        heartbeat = self._context.heartbeat
        if heartbeat.changed.is_set():
            heartbeat.changed.clear()
            self.queues.rebalance()
            for queue in self.queues:
                self.sender.pump(queue)
        self.sender.rebalance(now_s)
        observe_sender(self.sender.in_flight, self.queues.held - self.sender.in_flight)

    async def _evict_step(self) -> None:
        await asyncio.sleep(_EVICT_S)
        self.queues.evict_idle(time.monotonic())
        self.cache.evict_old(time.monotonic())
