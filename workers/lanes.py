"""Lanes: one queue per endpoint, and the room there is in each and in the whole process.

A lane holds what its endpoint can take in about a second (`policies.lanes.depth`); what does not fit is parked in
Postgres behind it. Lanes that are slow together get at most half of the process: of its calls in flight and of its
room. A lane of which nothing is known yet begins with a few calls. So receivers that hang cannot take what others need.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

from policies import lanes as policy
from workers.cargo import Cargo, EndpointFacts, Way
from workers.endpoints import Endpoint, EndpointKey
from workers.roster import Roster

SLOW_S: Final = 1.0
"""A lane whose answers take longer than this, or whose oldest call does, is slow."""
TRIAL: Final = 4
"""Calls at once to an endpoint that has not answered yet."""
_NEW_WEIGHT: Final = 0.2
_IDLE_S: Final = 600.0


class Lane:
    """The way to one endpoint. Only `Lanes` and the sender change it."""

    __slots__ = (
        "closed_until_s", "endpoint", "facts", "in_flight", "key", "mean_latency_s", "next_start_s", "parked", "queue", "rate_per_s",
        "reserved", "share", "slow", "started_s", "timer", "used_s",
    )  # fmt: skip

    def __init__(self, facts: EndpointFacts) -> None:
        self.key: EndpointKey = (facts.workspace_id, facts.id)
        self.facts = facts
        self.endpoint: Endpoint | None = None
        self.queue: deque[Cargo] = deque()
        self.started_s: dict[Cargo, float] = {}
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
        return len(self.queue) + self.in_flight + self.reserved

    @property
    def places(self) -> int:
        """How many calls may be under way."""
        return self.share if self.mean_latency_s is not None else min(self.share, TRIAL)

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


class Lanes:
    """All lanes of this process, and its room."""

    def __init__(self, roster: Roster, max_held: int, max_held_bytes: int) -> None:
        self._roster = roster
        self._max_held = max_held
        self._max_bytes = max_held_bytes
        self._lanes: dict[EndpointKey, Lane] = {}
        self._held: dict[str, Cargo] = {}
        self._claimed: set[str] = set()
        self._bodies: dict[str, tuple[bytes, list[int]]] = {}
        self._slow_held = 0
        self._bytes = 0
        self._body_bytes_mean = 1024.0
        self._promised = 0
        self.stopping = False

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    @property
    def held(self) -> int:
        """Deliveries leased to this process, those whose result is not committed included."""
        return len(self._held)

    @property
    def cargo(self) -> Iterable[Cargo]:
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
        return max(0, min(by_count, by_bytes) - self._promised)

    def has_room(self, *, claimed: bool) -> bool:
        """Whether there is room for a batch that is worth its round trip; claims are small (`workers.deliver`)."""
        return self.room(claimed=claimed) >= max(1, self._max_held // (32 if claimed else 8))

    def lane(self, facts: EndpointFacts) -> Lane:
        """The lane of an endpoint, by its newest facts."""
        key = (facts.workspace_id, facts.id)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(facts)
            self._divide(lane)
        elif lane.facts.version < facts.version:
            lane.facts = facts
            self._divide(lane)
        return lane

    def find(self, key: EndpointKey) -> Lane | None:
        """The lane of an endpoint, where there is one."""
        return self._lanes.get(key)

    def revise(self, endpoint: Endpoint) -> None:
        """Take up what was just read of an endpoint."""
        workspace_id, id = endpoint.key
        self.lane(EndpointFacts(workspace_id, id, endpoint.version, endpoint.max_in_flight, endpoint.rate_per_s))

    def divide(self) -> None:
        """Work out all shares anew: the list of live workers changed."""
        for lane in self._lanes.values():
            self._divide(lane)

    def _divide(self, lane: Lane) -> None:
        facts, roster = lane.facts, self._roster
        cap, me = facts.max_in_flight, roster.worker_id
        lane.share = policy.share(cap, roster.alive, me, facts.id, facts.rate_per_s)
        lane.rate_per_s = None
        if facts.rate_per_s is not None:
            lane.rate_per_s = policy.rate_share(facts.rate_per_s, cap, roster.alive, me, facts.id)

    def reserve(self, facts: EndpointFacts, now_s: float, *, asked: bool = False) -> Way:
        """Which way a delivery goes; LEASED promises it a place, to be taken by `load` or given up by `give_up`.

        What was asked for when the lane had room gets its place, though the lane has learnt meanwhile that it is slower.
        """
        lane = self.lane(facts)
        if not asked and lane.share == 0:
            return Way.PARKED
        if not asked and self.lane_room(lane, now_s) <= 0:
            lane.parked = True
            return Way.PARKED
        lane.reserved += 1
        self._promised += 1
        self._count(lane, 1)
        return Way.LEASED

    def lane_room(self, lane: Lane, now_s: float) -> int:
        """How many more deliveries the lane may hold."""
        room = lane.depth(now_s) - lane.held
        if lane.slow and room > 0:
            room = min(room, self._max_held // 2 - self._slow_held)
        return room

    def _count(self, lane: Lane, rows: int) -> None:
        if lane.slow:
            self._slow_held += rows

    def ended(self, lane: Lane) -> None:
        """A call ended: its place in the lane is free again."""
        lane.in_flight -= 1
        self._count(lane, -1)

    def set_slow(self, lane: Lane, slow: bool) -> None:
        """Move the lane to the slow ones or to the others."""
        self._count(lane, -lane.held)
        lane.slow = slow
        self._count(lane, lane.held)

    def take(self, lane: Lane, cargo: list[Cargo]) -> None:
        """Take deliveries out of a lane's queue that will not be sent from here."""
        for one in cargo:
            lane.queue.remove(one)
        self._count(lane, -len(cargo))

    def clear(self, lane: Lane) -> list[Cargo]:
        """Empty a lane's queue."""
        waiting = list(lane.queue)
        lane.queue.clear()
        self._count(lane, -len(waiting))
        return waiting

    def promise(self, rows: int) -> None:
        """Count rows of a claim that is under way; `promise(-rows)` when it is done."""
        self._promised += rows

    def give_up(self, facts: EndpointFacts) -> None:
        """Give up a reserved place."""
        lane = self.lane(facts)
        lane.reserved -= 1
        self._promised -= 1
        self._count(lane, -1)

    def load(self, facts: EndpointFacts, cargo: Cargo, now_s: float, *, claimed: bool) -> Lane:
        """Put a delivery into the place that was reserved for it."""
        lane = self.lane(facts)
        lane.reserved -= 1
        self._promised -= 1
        lane.used_s = now_s
        lane.queue.append(cargo)
        self._held[cargo.id] = cargo
        if claimed:
            self._claimed.add(cargo.id)
        self._weigh(cargo)
        return lane

    def _weigh(self, cargo: Cargo) -> None:
        size = len(cargo.body)
        shared = self._bodies.get(cargo.event_id)
        if shared is None:
            self._bodies[cargo.event_id] = (cargo.body, [1])
            self._bytes += size
        else:
            # A fan-out, claimed in several batches, keeps one body; it weighs once.
            cargo.body = shared[0]
            shared[1][0] += 1
        self._body_bytes_mean += 0.05 * (size - self._body_bytes_mean)

    def leave(self, cargo: Cargo) -> None:
        """The delivery is no longer ours: recorded, given back or lost."""
        if self._held.get(cargo.id) is not cargo:
            return
        del self._held[cargo.id]
        self._claimed.discard(cargo.id)
        body, users = self._bodies[cargo.event_id]
        users[0] -= 1
        if users[0] == 0:
            del self._bodies[cargo.event_id]
            self._bytes -= len(body)

    def excess(self, lane: Lane, now_s: float) -> list[Cargo]:
        """Take out of a slow lane's queue, from its end, what it holds too much of: by itself, or with the others."""
        allowed = 0 if self._slow_held > self._max_held // 2 else lane.depth(now_s)
        over = min(max(0, lane.held - allowed), len(lane.queue))
        taken = [lane.queue.pop() for _ in range(over)]
        self._count(lane, -len(taken))
        return taken

    def drained(self, lane: Lane, now_s: float) -> bool:
        """Whether the lane has drained to half, so that more may be claimed for it."""
        room = self.lane_room(lane, now_s)
        return room > 0 and room * 2 >= lane.depth(now_s)

    def wanting(self, now_s: float) -> list[tuple[Lane, int]]:
        """Lanes with parked rows behind them that have drained to half, and how many rows each may claim."""
        return [
            (lane, self.lane_room(lane, now_s))
            for lane in self._lanes.values()
            if lane.parked and lane.share and self.drained(lane, now_s)
        ]

    def backlogged(self, now_s: float) -> list[tuple[Lane, int]]:
        """Lanes where something waits, here or parked, and those that others serve: how many more rows each may hold."""
        return [
            (lane, max(0, self.lane_room(lane, now_s)) if lane.share else 0)
            for lane in self._lanes.values()
            if lane.queue or lane.parked or not lane.share
        ]

    def forget_idle(self, now_s: float) -> None:
        """Drop lanes that nothing has gone through for ten minutes."""
        idle = [
            key
            for key, lane in self._lanes.items()
            if not lane.held and not lane.parked and now_s - lane.used_s > _IDLE_S
        ]
        for key in idle:
            del self._lanes[key]
