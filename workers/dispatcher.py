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

from spine.bell import Kind
from spine.metrics import observe_sender
from workers.cargo import Cargo, Way
from workers.deliver import Claims
from workers.endpoints import EndpointBook, EndpointKey
from workers.lanes import Lanes
from workers.leases import Leases
from workers.line import Tools, keep_going, wait_for_bell
from workers.recorder import Recorder
from workers.relay import Relay
from workers.sender import Sender

PARKED_POLL_S: Final = 0.2
"""How long a row may wait that a worker without a share of its endpoint has parked."""
LOOK_AROUND_S: Final = 0.1
_FULL_PAUSE_S: Final = 0.004
_FORGET_S: Final = 60.0


class Dispatcher:
    """The delivery line of one process."""

    def __init__(self, tools: Tools) -> None:
        work, pool = tools.work, tools.pool
        self._tools = tools
        self.lanes = Lanes(tools.roster, work.max_held, work.max_held_bytes)
        self.leases = Leases(pool, self.lanes, tools.bell, tools.worker_id, work.lease_s)
        self.recorder = Recorder(pool, tools.bell, work.commit_gap_s, self.lanes.leave, self._gone)
        self.sender = Sender(tools.egress, self.lanes, work.max_in_flight, self.recorder.put, self._turn, self._drained)
        self.book = EndpointBook(pool, tools.vault, self.sender.loaded)
        self.sender.book = self.book
        self.relay = Relay(pool, self.lanes, tools.bell, work, tools.worker_id, self.sender.welcome)
        self.claims = Claims(pool, self.lanes, work, tools.worker_id, self.recorder.put, self._turn, self.sender.pump)
        self._wake_relay = asyncio.Event()
        self._wake_due = asyncio.Event()
        self._wake_parked = asyncio.Event()
        self._wake_flush = asyncio.Event()

    def hear(self, kind: Kind) -> None:
        """A bell rang."""
        if kind == "relay":
            self._wake_relay.set()
        elif kind == "deliver":
            self._wake_due.set()
        if kind in ("relay", "send") and not self.relay.behind:
            # What is new has several round trips before it; with a relay that is behind, haste would win nothing.
            self.sender.hasten()

    async def run(self) -> None:
        """Work until cancelled."""
        self._wake_relay.set()
        self._wake_due.set()
        steps: dict[str, Callable[[], Awaitable[None]]] = {
            "relay": self._relay_step,
            "due": self._due_step,
            "parked": self._parked_step,
            "find parked": self._find_step,
            "endpoints": self.book.step,
            "leases": self._flush_step,
            "renew": self._renew_step,
            "look around": self._look_around_step,
            "forget": self._forget_step,
        }
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self.recorder.run())
            for name, step in steps.items():
                loops.create_task(keep_going(name, step))

    async def drain(self, within_s: float) -> None:
        """Stop claiming, let calls end, record, give the rest back."""
        until_s = time.monotonic() + within_s
        self.lanes.stopping = True
        await self.sender.drain(within_s)
        await self.leases.flush()
        await self.recorder.drain(max(1.0, until_s - time.monotonic()))
        await self.leases.flush()

    def _turn(self, cargo: Cargo, way: Way) -> None:
        self.leases.turn(cargo, way)
        self._wake_flush.set()

    def _drained(self) -> None:
        self._wake_parked.set()

    def _gone(self, key: EndpointKey) -> None:
        self.book.expire(key)

    async def _wait(self, bell: asyncio.Event) -> None:
        await wait_for_bell(bell, self._tools.work.sweep_s, self._tools.hearing)

    async def _relay_step(self) -> None:
        await self._wait(self._wake_relay)
        more = True
        try:
            while more and not self.lanes.stopping:
                if self.lanes.has_room(claimed=False):
                    more = await self.relay.look()
                else:
                    await asyncio.sleep(_FULL_PAUSE_S)
        except BaseException:
            self._wake_relay.set()
            raise

    async def _due_step(self) -> None:
        await self._wait(self._wake_due)
        more = True
        while more and not self.lanes.stopping:
            if self.lanes.has_room(claimed=True):
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
        if not self.lanes.stopping and await self.claims.find_parked():
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
        await asyncio.sleep(self._tools.work.lease_s / 3)
        await self.leases.renew()

    async def _look_around_step(self) -> None:
        await asyncio.sleep(LOOK_AROUND_S)
        now_s = time.monotonic()
        roster = self._tools.roster
        if roster.changed.is_set():
            roster.changed.clear()
            self.lanes.divide()
            for lane in self.lanes:
                self.sender.pump(lane)
        self.sender.look_around(now_s)
        observe_sender(self.sender.in_flight, self.lanes.held - self.sender.in_flight)

    async def _forget_step(self) -> None:
        await asyncio.sleep(_FORGET_S)
        self.lanes.forget_idle(time.monotonic())
        self.book.forget_old(time.monotonic())
