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
from spine.egress import Egress
from spine.metrics import first_byte, lateness_seconds
from workers.cargo import Cargo, Outcome, Result, Stopped, Way
from workers.endpoints import Endpoint, EndpointBook
from workers.lanes import SLOW_S, Lane, Lanes

STARTS_A_TURN: Final = 8
"""Calls that start in one turn of the event loop: a backlog must not make a turn long, for all that is new waits for turns."""
STARTS_IN_HASTE: Final = 2
"""The same in haste; as many more as are missing to a usual turn may start for what the relay has just brought."""
HASTE_S: Final = 0.1
"""How long haste lasts: longer than an event takes, so that a stream of them is never without."""
_OUT_OF_SOCKETS_PAUSE_S: Final = 1.0
_UNREADABLE_PAUSE_S: Final = 30.0

_log = structlog.get_logger("workers.sender")


class _Waiting:
    """Lanes that wait for a call: first those that have none under way, then the others, each kind in turn.

    So an endpoint's first event does not wait a round behind the lanes that serve a backlog. A lane that others overtake
    comes to the first kind as soon as its own calls have ended.
    """

    __slots__ = ("_busy", "_idle")

    def __init__(self) -> None:
        self._idle: dict[Lane, None] = {}
        self._busy: dict[Lane, None] = {}

    def __bool__(self) -> bool:
        return bool(self._idle or self._busy)

    def add(self, lane: Lane) -> None:
        if lane.in_flight:
            self._busy[lane] = None
        else:
            self._busy.pop(lane, None)
            self._idle[lane] = None

    def pop(self) -> Lane:
        waiting = self._idle or self._busy
        lane = next(iter(waiting))
        del waiting[lane]
        return lane

    def remove(self, lane: Lane) -> bool:
        """Whether it waited."""
        waited = lane in self._idle or lane in self._busy
        self._idle.pop(lane, None)
        self._busy.pop(lane, None)
        return waited


class Sender:
    """Sends what the lanes hold.

    `record` takes results, `turn` what goes another way; `drained` is told of room for what is parked behind a lane.
    """

    def __init__(
        self,
        egress: Egress,
        lanes: Lanes,
        max_in_flight: int,
        record: Callable[[Result], None],
        turn: Callable[[Cargo, Way], None],
        drained: Callable[[], None],
    ) -> None:
        self._egress = egress
        self._lanes = lanes
        self._max = max_in_flight
        self._record = record
        self._turn = turn
        self._drained = drained
        self._in_flight = {True: 0, False: 0}
        self._waiting = {True: _Waiting(), False: _Waiting()}
        self._calls: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._haste_ends_s = 0.0
        self._starts_left = STARTS_A_TURN
        self._welcomes_left = 0
        self._turn_begun = False
        self._stopping = False
        self.book: EndpointBook

    @property
    def in_flight(self) -> int:
        """Calls under way."""
        return self._in_flight[True] + self._in_flight[False]

    def pump(self, lane: Lane) -> None:
        """Start what may start in this lane."""
        while (cargo := self._next(lane)) is not None:
            self._start(lane, cargo)

    def welcome(self, lane: Lane) -> None:
        """`pump` a lane that has just been given new work: in haste it need not wait for the next turn."""
        if self._starts_left <= 0 and self._welcomes_left > 0:
            self._welcomes_left -= 1
            self._starts_left = 1
        self.pump(lane)

    def hasten(self) -> None:
        """Keep turns shorter still for `HASTE_S`: somebody with new work waits for them."""
        self._haste_ends_s = time.monotonic() + HASTE_S

    def _start(self, lane: Lane, cargo: Cargo) -> None:
        call = self._loop.create_task(self._serve(lane, cargo))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    def loaded(self, endpoint: Endpoint) -> None:
        """An endpoint was read anew: its lane goes on, or its deliveries go another way."""
        self._lanes.revise(endpoint)
        lane = self._lanes.find(endpoint.key)
        if lane is None or not lane.queue:
            return
        if endpoint.deleted:
            for cargo in self._lanes.clear(lane):
                self._record(Stopped(cargo, "endpoint_deleted"))
        elif endpoint.disabled:
            self._turn_all(lane, Way.HELD)
        elif endpoint.signer is None:
            # The operator's key is missing: nobody's attempts are used up, and it is looked at again in a while.
            lane.closed_until_s = time.monotonic() + _UNREADABLE_PAUSE_S
            lane.parked = True
            self._turn_all(lane, Way.PARKED)
        else:
            self.pump(lane)

    def look_around(self, now_s: float) -> None:
        """See which lanes have become slow, and give back what they hold too much of. Called a few times a second."""
        for lane in self._lanes:
            if not lane.slow and lane.oldest_s(now_s) > SLOW_S:
                self._set_slow(lane, True)
            if lane.queue and (lane.slow or lane.share == 0):
                for cargo in self._lanes.excess(lane, now_s):
                    lane.parked = True
                    self._turn(cargo, Way.PARKED)
        self._pump_waiting()

    async def drain(self, within_s: float) -> None:
        """Start nothing more, give back what waits, let the calls under way end within that time and cut off the rest."""
        self._stopping = True
        for lane in self._lanes:
            self._turn_all(lane, Way.DUE)
        calls = set(self._calls)
        if calls:
            _, late = await asyncio.wait(calls, timeout=within_s)
            for call in late:
                call.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _turn_all(self, lane: Lane, way: Way) -> None:
        for cargo in self._lanes.clear(lane):
            self._turn(cargo, way)

    def _next(self, lane: Lane) -> Cargo | None:
        """The delivery to be sent now in this lane, counted as in flight; None when none may start."""
        now_s = time.monotonic()
        while lane.queue and lane.in_flight < lane.places and not self._stopping:
            if lane.queue[0].lease_ends_s <= now_s:
                # Could not be renewed in time: somebody else may have it.
                lost = lane.queue[0]
                self._lanes.take(lane, [lost])
                self._lanes.leave(lost)
                continue
            if not self._may_start(lane, now_s):
                return None
            cargo = lane.queue.popleft()
            lane.in_flight += 1
            lane.started_s[cargo] = now_s
            self._in_flight[lane.slow] += 1
            if not self._turn_begun:
                self._turn_begun = True
                self._loop.call_soon(self._next_turn)
            self._starts_left -= 1
            return cargo
        return None

    def _next_turn(self) -> None:
        self._turn_begun = False
        self._starts_left = STARTS_IN_HASTE if time.monotonic() < self._haste_ends_s else STARTS_A_TURN
        self._welcomes_left = STARTS_A_TURN - self._starts_left
        self._pump_waiting()

    def _may_start(self, lane: Lane, now_s: float) -> bool:
        endpoint = self.book.find(lane.key, now_s)
        if endpoint is None or not endpoint.may_be_called:
            return False  # `loaded` goes on from here
        lane.endpoint = endpoint
        if now_s < lane.next_start_s:
            self._call_later(lane, lane.next_start_s - now_s)
            return False
        if not self._has_call(lane.slow):
            self._waiting[lane.slow].add(lane)
            return False
        if lane.rate_per_s is not None:
            interval_s = 1 / lane.rate_per_s
            lane.next_start_s = max(lane.next_start_s, now_s - interval_s) + interval_s
        return True

    def _has_call(self, slow: bool) -> bool:
        if self._starts_left <= 0:
            return False
        half = max(1, self._max // 2)
        if slow:
            return self._in_flight[True] < half and self.in_flight < self._max
        # Lanes that have just become slow may hold more than half; that must not be taken off the others' half.
        return self._in_flight[False] < self._max - min(self._in_flight[True], self._max // 2)

    def _call_later(self, lane: Lane, delay_s: float) -> None:
        if not lane.timer:
            lane.timer = True
            self._loop.call_later(delay_s, self._timer_rang, lane)

    def _timer_rang(self, lane: Lane) -> None:
        lane.timer = False
        self.pump(lane)

    def _pump_waiting(self) -> None:
        for slow, waiting in self._waiting.items():
            while waiting and self._has_call(slow):
                lane = waiting.pop()
                cargo = self._next(lane)
                if cargo is None:
                    continue
                self._start(lane, cargo)
                if lane.queue and lane.in_flight < lane.places:
                    waiting.add(lane)  # to the end: one call a round for each

    def _set_slow(self, lane: Lane, slow: bool) -> None:
        self._in_flight[lane.slow] -= lane.in_flight
        self._lanes.set_slow(lane, slow)
        self._in_flight[slow] += lane.in_flight
        if self._waiting[not slow].remove(lane):
            self._waiting[slow].add(lane)

    async def _serve(self, lane: Lane, first: Cargo) -> None:
        cargo: Cargo | None = first
        while cargo is not None:
            await self._send(lane, cargo)
            if self._waiting[False] or self._waiting[True]:
                self._pump_waiting()
            cargo = self._next(lane)

    async def _send(self, lane: Lane, cargo: Cargo) -> None:
        result: Outcome | None = None
        try:
            result = await self._attempt(lane, cargo)
        except OSError as error:
            _log.warning("no socket for a call", error=repr(error))
            lane.next_start_s = max(lane.next_start_s, time.monotonic() + _OUT_OF_SOCKETS_PAUSE_S)
        except Exception:
            _log.exception("a call broke", delivery_id=cargo.id)
            lane.next_start_s = max(lane.next_start_s, time.monotonic() + _OUT_OF_SOCKETS_PAUSE_S)
        finally:
            self._finish(lane, cargo, result)

    async def _attempt(self, lane: Lane, cargo: Cargo) -> Outcome:
        endpoint = lane.endpoint
        assert endpoint is not None
        signer = endpoint.signer
        assert signer is not None
        timestamp_s = int(time.time())
        headers = {
            **endpoint.headers,
            "webhook-id": cargo.event_id,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": signer.sign(cargo.event_id, timestamp_s, cargo.body),
        }
        answer = await self._egress.post(endpoint.url, headers, cargo.body, https_required=endpoint.live)
        _note_lateness(cargo, answer.started_at)
        return Outcome(cargo, answer, judge(answer.status, answer.error, answer.retry_after, datetime.now(UTC)))

    def _finish(self, lane: Lane, cargo: Cargo, result: Outcome | None) -> None:
        self._in_flight[lane.slow] -= 1
        self._lanes.ended(lane)
        del lane.started_s[cargo]
        if result is None:
            # No verdict on anybody: whoever comes first tries again.
            self._turn(cargo, Way.DUE)
            return
        lane.learn(result.answer.duration_s)
        slow = (lane.mean_latency_s or 0) > SLOW_S or lane.oldest_s(time.monotonic()) > SLOW_S
        if slow != lane.slow:
            self._set_slow(lane, slow)
        self._record(result)
        if lane.parked and self._lanes.drained(lane, time.monotonic()):
            self._drained()


def _note_lateness(cargo: Cargo, started_at: datetime) -> None:
    if cargo.failures:
        if cargo.due_at is not None:
            lateness_seconds("retry").observe((started_at - cargo.due_at).total_seconds())
    elif cargo.series == 1:
        late_s = (started_at - cargo.accepted_at).total_seconds()
        first_byte(late_s)
        lateness_seconds("first").observe(late_s)
