"""The relay: takes events from the outbox, finds who listened when they were accepted, and writes their deliveries.

What has room here is leased to this process as it is written, so it is on its way without being claimed. While there
is a backlog, half of each batch comes from its newest end: what is accepted now does not wait for what piled up.

A few events are read and written without a transaction around both: that takes two round trips instead of five, and
now and then two workers read the same event, of which one finds it gone when it writes. Many are locked from the first
look to the end, so that several workers with a backlog do not do each other's work.
"""

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import asyncpg

from spine import ids
from spine.bell import Bell
from spine.settings import WorkSettings
from spine.webhooks import filters, queries
from workers.cargo import Cargo, EndpointFacts, Way
from workers.desk import Desk
from workers.lanes import Lane, Lanes

MAX_DELIVERIES: Final = 5000
"""Rows of one transaction, unless a single event has more endpoints than that."""
_EVENTS_MAX: Final = 500
_EVENTS_FIRST: Final = 64
_FEW: Final = 16
"""Events, or deliveries, that may be made for nothing."""

Listener = tuple[EndpointFacts, Any, filters.Json | None]
"""An endpoint, its subscription's row, and the filter that stands there."""


@dataclass(slots=True)
class _Made:
    """A delivery to be written, and where it goes."""

    event: Any
    id: str
    facts: EndpointFacts
    way: Way


class Relay:
    """One batch after another; `look` does one. `pump` starts a lane's calls."""

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        lanes: Lanes,
        bell: Bell,
        work: WorkSettings,
        worker_id: str,
        pump: Callable[[Lane], None],
    ) -> None:
        self._desk = Desk(pool, eager=True)
        self._lanes = lanes
        self._bell = bell
        self._lease = timedelta(seconds=work.lease_s)
        self._worker_id = worker_id
        self._pump = pump
        self._events = _EVENTS_FIRST
        self.behind = False
        """Whether more events waited at the last look than it could take."""
        self._locking = False
        """Whether there was so much at the last look that the next one locks what it reads."""

    async def close(self) -> None:
        """Give the connection back."""
        await self._desk.close()

    async def look(self) -> bool:
        """Relay one batch; answers whether there may be more."""
        wanted = min(self._events, self._lanes.room(claimed=False))
        newest = wanted // 2 if self.behind else 0
        async with self._desk.connection() as connection:
            lease_ends_s = time.monotonic() + self._lease.total_seconds()
            made: list[_Made] = []
            try:
                async with connection.transaction() if self._locking else contextlib.nullcontext():
                    taken, listening = await self._read(connection, wanted - newest, newest)
                    if not taken:
                        self.behind = self._locking = False
                        return False
                    listeners = _by_type(listening)
                    done, stillborn = self._make(taken, listeners, made)
                    mine = await self._write(connection, done, made, stillborn)
            except BaseException:
                self._give_up(made)
                raise
        self.behind = len(taken) == wanted or len(done) < len(taken)
        self._locking = self.behind or max(len(taken), len(made)) > _FEW
        self._fit(len(done), len(made), cut=len(done) < len(taken))
        if len(mine) < len(done):
            self._give_up(one for one in made if one.event["seq"] not in mine)
            made = [one for one in made if one.event["seq"] in mine]
        self._load(made, lease_ends_s)
        if any(one.way is Way.DUE for one in made):
            self._bell.ring("deliver")
        if self.behind:
            self._bell.ring("relay")
        return self.behind

    def _fit(self, events: int, deliveries: int, *, cut: bool) -> None:
        """Take as many events next time as fit into one transaction at this fan-out and these filters."""
        fitting = int(MAX_DELIVERIES / max(deliveries / events, 1.0))
        self._events = max(1, min(_EVENTS_MAX, fitting, (events if cut else self._events) * 2))

    async def _read(self, connection: Any, oldest: int, newest: int) -> tuple[list[Any], list[Any]]:
        """So many events of the outbox's either end, and who listened to their types."""
        if self._locking:
            taken = await connection.fetch(queries.OUTBOX_TAKE, oldest, newest)
        else:
            rows = await connection.fetch(queries.OUTBOX_READ, oldest, newest, _FEW)
            taken = [row for row in rows if row["seq"] is not None]
            if len(taken) <= _FEW:
                return taken, rows[len(taken) :]
        listening = await connection.fetch(
            queries.LISTENERS_FIND,
            [event["workspace_id"] for event in taken],
            [event["type"] for event in taken],
            [event["accepted_at"] for event in taken],
        )
        return taken, listening

    def _make(
        self, taken: list[Any], listeners: dict[tuple[str, str], list[Listener]], made: list[_Made]
    ) -> tuple[list[Any], list[_Made]]:
        """Decide on the events in turn, until transaction or time is full; answers those done and what was born dead."""
        done: list[Any] = []
        stillborn: list[_Made] = []
        now_s = time.monotonic()
        room = self._lanes.room(claimed=False)
        judged = 0
        for event in taken:
            if judged > filters.STEPS_OF_A_BATCH:
                break
            payload = filters.Payload(event["body"])
            matching = _matching(event, listeners, payload)
            judged += payload.spent
            if done and len(made) + len(matching) > MAX_DELIVERIES:
                break
            done.append(event)
            for facts, row, _ in matching:
                one = _Made(event, ids.mint("dlv"), facts, Way.HELD)
                if row["deleted"] or event["body"] is None:
                    stillborn.append(one)
                    continue
                if not row["disabled"]:
                    one.way = self._lanes.reserve(facts, now_s) if room > 0 else Way.DUE
                    room -= one.way is Way.LEASED
                made.append(one)
        return done, stillborn

    async def _write(self, connection: Any, done: list[Any], made: list[_Made], stillborn: list[_Made]) -> set[int]:
        """Answers the numbers of the events that this process has relayed; the others another worker has."""
        rows = await connection.fetch(
            queries.OUTBOX_DONE,
            [event["seq"] for event in done],
            self._worker_id,
            self._lease,
            *_columns(made),
            [int(one.way) for one in made],
            *_columns(stillborn),
            ["payload_erased" if one.event["body"] is None else "endpoint_deleted" for one in stillborn],
        )
        return {row["seq"] for row in rows}

    def _give_up(self, made: Iterable[_Made]) -> None:
        for one in made:
            if one.way is Way.LEASED:
                self._lanes.give_up(one.facts)

    def _load(self, made: Iterable[_Made], lease_ends_s: float) -> None:
        now_s = time.monotonic()
        lanes: dict[Lane, None] = {}
        for one in made:
            if one.way is Way.LEASED:
                event = one.event
                cargo = Cargo(
                    event["workspace_id"], one.id, event["event_id"], event["type"], one.facts.id, 0, 1, None,
                    event["accepted_at"], event["body"], lease_ends_s, None,
                )  # fmt: skip
                lanes[self._lanes.load(one.facts, cargo, now_s, claimed=False)] = None
        for lane in lanes:
            self._pump(lane)


def _by_type(rows: Iterable[Any]) -> dict[tuple[str, str], list[Listener]]:
    """Workspace and event type → who listened to it."""
    found: dict[tuple[str, str], list[Listener]] = defaultdict(list)
    for row in rows:
        found[row["workspace_id"], row["type"]].append((EndpointFacts.read(row), row, filters.read(row["filter"])))
    return found


def _matching(event: Any, listeners: dict[tuple[str, str], list[Listener]], payload: filters.Payload) -> list[Listener]:
    """Each endpoint once, that listened at the instant when the event was accepted and whose filter of then it meets."""
    accepted_at = event["accepted_at"]
    found: dict[str, Listener] = {}
    for listener in listeners.get((event["workspace_id"], event["type"]), ()):
        facts, row, _ = listener
        if row["valid_from"] <= accepted_at < row["valid_to"] and facts.id != event["not_endpoint_id"]:
            found[facts.id] = listener
    return [listener for listener in found.values() if not listener[2] or payload.meets(listener[2])]


def _columns(made: list[_Made]) -> list[list[Any]]:
    return [
        [one.event["seq"] for one in made],
        [one.event["workspace_id"] for one in made],
        [one.id for one in made],
        [one.event["event_id"] for one in made],
        [one.event["type"] for one in made],
        [one.facts.id for one in made],
        [one.event["accepted_at"] for one in made],
    ]
