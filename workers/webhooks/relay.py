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

from spine.kernel import ids
from spine.kernel.settings import WorkSettings
from spine.kernel.wakeups import Wakeups
from spine.webhooks import filters, queries
from workers.connection import DedicatedConnection
from workers.webhooks.endpoint_queues import EndpointQueue, EndpointQueues
from workers.webhooks.jobs import DeliveryJob, EndpointLimits, Placement

MAX_DELIVERIES: Final = 5000
"""Rows of one transaction, unless a single event has more endpoints than that."""
_EVENTS_MAX: Final = 500
_EVENTS_FIRST: Final = 64
_FEW: Final = 16
"""Events, or deliveries, that may be made for nothing."""

Subscriber = tuple[EndpointLimits, Any, filters.Json | None]
"""An endpoint, its subscription's row, and the filter that stands there."""


@dataclass(slots=True)
class _NewDelivery:
    """A delivery to be written, and where it goes."""

    event: Any
    id: str
    limits: EndpointLimits
    placement: Placement


class Relay:
    """One batch after another; `relay_batch` does one. `pump` starts a lane's calls."""

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        queues: EndpointQueues,
        wakeups: Wakeups,
        work: WorkSettings,
        worker_id: str,
        pump: Callable[[EndpointQueue], None],
    ) -> None:
        self._db = DedicatedConnection(pool, async_commit=True)
        self._queues = queues
        self._bell = wakeups
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
        await self._db.close()

    async def relay_batch(self) -> bool:
        """Relay one batch; answers whether there may be more."""
        wanted = min(self._events, self._queues.room(claimed=False))
        newest = wanted // 2 if self.behind else 0
        async with self._db.connection() as connection:
            lease_ends_s = time.monotonic() + self._lease.total_seconds()
            made: list[_NewDelivery] = []
            try:
                async with connection.transaction() if self._locking else contextlib.nullcontext():
                    taken, subscriptions = await self._read(connection, wanted - newest, newest)
                    if not taken:
                        self.behind = self._locking = False
                        return False
                    subscribers = _by_type(subscriptions)
                    done, discarded = self._make(taken, subscribers, made)
                    mine = await self._write(connection, done, made, discarded)
            except BaseException:
                self._cancel_reservations(made)
                raise
        self.behind = len(taken) == wanted or len(done) < len(taken)
        self._locking = self.behind or max(len(taken), len(made)) > _FEW
        self._fit(len(done), len(made), cut=len(done) < len(taken))
        if len(mine) < len(done):
            self._cancel_reservations(one for one in made if one.event["seq"] not in mine)
            made = [one for one in made if one.event["seq"] in mine]
        self._load(made, lease_ends_s)
        if any(one.placement is Placement.DUE for one in made):
            self._bell.wake("deliver")
        if self.behind:
            self._bell.wake("relay")
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
        subscriptions = await connection.fetch(
            queries.SUBSCRIBERS_FIND,
            [event["workspace_id"] for event in taken],
            [event["type"] for event in taken],
            [event["accepted_at"] for event in taken],
        )
        return taken, subscriptions

    def _make(
        self, taken: list[Any], subscribers: dict[tuple[str, str], list[Subscriber]], made: list[_NewDelivery]
    ) -> tuple[list[Any], list[_NewDelivery]]:
        """Decide on the events in turn, until transaction or time is full; answers those done and what was born dead."""
        done: list[Any] = []
        discarded: list[_NewDelivery] = []
        now_s = time.monotonic()
        room = self._queues.room(claimed=False)
        judged = 0
        for event in taken:
            if judged > filters.STEPS_OF_A_BATCH:
                break
            payload = filters.Payload(event["body"])
            matching = _matching(event, subscribers, payload)
            judged += payload.spent
            if done and len(made) + len(matching) > MAX_DELIVERIES:
                break
            done.append(event)
            for limits, row, _ in matching:
                one = _NewDelivery(event, ids.mint("dlv"), limits, Placement.HELD)
                if row["deleted"] or event["body"] is None:
                    discarded.append(one)
                    continue
                if not row["disabled"]:
                    one.placement = self._queues.reserve(limits, now_s) if room > 0 else Placement.DUE
                    room -= one.placement is Placement.LEASED
                made.append(one)
        return done, discarded

    async def _write(
        self, connection: Any, done: list[Any], made: list[_NewDelivery], discarded: list[_NewDelivery]
    ) -> set[int]:
        """Answers the numbers of the events that this process has relayed; the others another worker has."""
        rows = await connection.fetch(
            queries.OUTBOX_DONE,
            [event["seq"] for event in done],
            self._worker_id,
            self._lease,
            *_columns(made),
            [int(one.placement) for one in made],
            *_columns(discarded),
            ["payload_erased" if one.event["body"] is None else "endpoint_deleted" for one in discarded],
        )
        return {row["seq"] for row in rows}

    def _cancel_reservations(self, made: Iterable[_NewDelivery]) -> None:
        for one in made:
            if one.placement is Placement.LEASED:
                self._queues.cancel_reservation(one.limits)

    def _load(self, made: Iterable[_NewDelivery], lease_ends_s: float) -> None:
        now_s = time.monotonic()
        queues: dict[EndpointQueue, None] = {}
        for one in made:
            if one.placement is Placement.LEASED:
                event = one.event
                job = DeliveryJob(
                    event["workspace_id"], one.id, event["event_id"], event["type"], one.limits.id, 0, 1, None,
                    event["accepted_at"], event["body"], lease_ends_s, None,
                )  # fmt: skip
                queues[self._queues.load(one.limits, job, now_s, claimed=False)] = None
        for queue in queues:
            self._pump(queue)


def _by_type(rows: Iterable[Any]) -> dict[tuple[str, str], list[Subscriber]]:
    """Workspace and event type → who listened to it."""
    found: dict[tuple[str, str], list[Subscriber]] = defaultdict(list)
    for row in rows:
        found[row["workspace_id"], row["type"]].append((EndpointLimits.read(row), row, filters.read(row["filter"])))
    return found


def _matching(
    event: Any, subscribers: dict[tuple[str, str], list[Subscriber]], payload: filters.Payload
) -> list[Subscriber]:
    """Each endpoint once, that listened at the instant when the event was accepted and whose filter of then it meets."""
    accepted_at = event["accepted_at"]
    found: dict[str, Subscriber] = {}
    for subscriber in subscribers.get((event["workspace_id"], event["type"]), ()):
        limits, row, _ = subscriber
        if row["valid_from"] <= accepted_at < row["valid_to"] and limits.id != event["not_endpoint_id"]:
            found[limits.id] = subscriber
    return [subscriber for subscriber in found.values() if not subscriber[2] or payload.meets(subscriber[2])]


def _columns(made: list[_NewDelivery]) -> list[list[Any]]:
    return [
        [one.event["seq"] for one in made],
        [one.event["workspace_id"] for one in made],
        [one.id for one in made],
        [one.event["event_id"] for one in made],
        [one.event["type"] for one in made],
        [one.limits.id for one in made],
        [one.event["accepted_at"] for one in made],
    ]
