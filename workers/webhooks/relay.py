"""The relay: reads events from the outbox and writes one delivery for each endpoint that was subscribed at accept time.

If this process has capacity, a delivery is leased to it as it is written, so it is sent without a claim. While there is
a backlog, half of each batch is read from its newest end, so that new events do not wait behind the backlog.

A small batch is read and written without a transaction around both. That takes two round trips instead of five, but
two workers may read the same event; then one of them finds it gone when it writes. A large batch is locked when it is
read, so that several workers with a backlog do not repeat each other's work.
"""

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from statistics import mode
from typing import Any, Final

import asyncpg

from spine.kernel import ids
from spine.kernel.settings import WorkSettings
from spine.kernel.wakeups import Wakeups
from spine.webhooks import filters, queries
from workers.connection import DedicatedConnection
from workers.webhooks.endpoint_queue import EndpointQueue
from workers.webhooks.endpoint_queues import EndpointQueues
from workers.webhooks.jobs import DeliveryJob, EndpointLimits, Placement

MAX_DELIVERIES: Final = 5000
"""Deliveries per transaction, unless a single event has more endpoints."""
_EVENTS_MAX: Final = 500
_EVENTS_FIRST: Final = 64
_SMALL_BATCH: Final = 16
"""Events, or deliveries, up to which a batch is not locked: two workers may both do this work."""

Subscriber = tuple[EndpointLimits, Any, filters.Json | None]
"""The limits of an endpoint, the row of its subscription, and the parsed filter of that row."""


@dataclass(slots=True)
class _NewDelivery:
    """A delivery to write, and its placement."""

    event: Any
    id: str
    limits: EndpointLimits
    placement: Placement


class Relay:
    """Relays batches of events. Calls `start_new` with each endpoint queue that got jobs."""

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        queues: EndpointQueues,
        wakeups: Wakeups,
        work: WorkSettings,
        worker_id: str,
        start_new: Callable[[EndpointQueue], None],
    ) -> None:
        self._db = DedicatedConnection(pool, async_commit=True)
        self._queues = queues
        self._wakeups = wakeups
        self._lease = timedelta(seconds=work.lease_s)
        self._worker_id = worker_id
        self._start_new = start_new
        self._batch_size = _EVENTS_FIRST
        self.has_backlog = False
        """Whether the last batch left events in the outbox."""
        self._locking = False
        """Whether the last batch was so large that the next one is locked when it is read."""
        self._busiest: str | None = None  # the workspace of most deliveries of the last batch, if that was large

    @property
    def has_room(self) -> bool:
        """Whether the next batch can be leased as it is written, if it is of the same workspace as most of the last one."""
        return self._queues.relay_room(self._busiest) > 0

    async def close(self) -> None:
        """Return the connection to the pool."""
        await self._db.close()

    async def relay_batch(self) -> bool:
        """Relay one batch. Returns True if more events may wait."""
        limit = min(self._batch_size, self._queues.relay_room(self._busiest) or self._batch_size)
        with self._queues.bodies.reserved_batch() as room:
            return await self._relay_batch(limit, room)

    async def _relay_batch(self, limit: int, room: int) -> bool:
        newest = limit // 2 if self.has_backlog else 0
        async with self._db.connection() as connection:
            lease_ends_s = time.monotonic() + self._lease.total_seconds()
            deliveries: list[_NewDelivery] = []
            try:
                async with connection.transaction() if self._locking else contextlib.nullcontext():
                    events, subscriptions = await self._read(connection, limit - newest, newest, room)
                    if not events:
                        self.has_backlog = self._locking = False
                        return False
                    planned, discarded = self._plan(events, _by_type(subscriptions), deliveries)
                    relayed = await self._write(connection, planned, deliveries, discarded)
            except BaseException:
                self._cancel_reservations(deliveries)
                raise
        cut = sum(len(event["body"] or b"") for event in events) >= room
        self.has_backlog = len(events) == limit or len(planned) < len(events) or cut
        self._locking = self.has_backlog or max(len(events), len(deliveries)) > _SMALL_BATCH
        self._busiest = mode(one.limits.workspace_id for one in deliveries) if self._locking and deliveries else None
        self._adapt_batch_size(len(planned), len(deliveries), cut=len(planned) < len(events))
        if len(relayed) < len(planned):
            self._cancel_reservations(one for one in deliveries if one.event["seq"] not in relayed)
            deliveries = [one for one in deliveries if one.event["seq"] in relayed]
        self._load_leased(deliveries, lease_ends_s)
        if any(one.placement is Placement.DUE for one in deliveries):
            self._wakeups.wake("deliver")
        if self.has_backlog:
            self._wakeups.wake("relay")
        return self.has_backlog

    def _adapt_batch_size(self, events: int, deliveries: int, *, cut: bool) -> None:
        """Read as many events next time as fit into one transaction at this fan-out and with these filters."""
        fitting = int(MAX_DELIVERIES / max(deliveries / events, 1.0))
        self._batch_size = max(1, min(_EVENTS_MAX, fitting, (events if cut else self._batch_size) * 2))

    async def _read(self, connection: Any, oldest: int, newest: int, room: int) -> tuple[list[Any], list[Any]]:
        """Read that many events from the two ends of the outbox, of `room` bytes, and the subscriptions to their types."""
        if self._locking:
            events = await connection.fetch(queries.OUTBOX_TAKE, oldest, newest, room)
        else:
            rows = await connection.fetch(queries.OUTBOX_READ, oldest, newest, room, _SMALL_BATCH)
            events = [row for row in rows if row["seq"] is not None]
            if len(events) <= _SMALL_BATCH:
                return events, rows[len(events) :]
        subscriptions = await connection.fetch(
            queries.SUBSCRIBERS_FIND,
            [event["workspace_id"] for event in events],
            [event["type"] for event in events],
            [event["accepted_at"] for event in events],
        )
        return events, subscriptions

    def _plan(
        self,
        events: list[Any],
        subscribers: dict[tuple[str, str], list[Subscriber]],
        deliveries: list[_NewDelivery],
    ) -> tuple[list[Any], list[_NewDelivery]]:
        """Plan the deliveries of the events in turn, until the transaction is full or the filters have cost too much.

        Adds to `deliveries` also if it raises, so that the caller can cancel their reservations. Returns the planned
        events, and the deliveries that are dead at once.
        """
        planned: list[Any] = []
        discarded: list[_NewDelivery] = []
        now_s = time.monotonic()
        capacity = self._queues.capacity(claimed=False)
        filter_steps = 0
        for event in events:
            if filter_steps > filters.STEPS_OF_A_BATCH:
                break
            payload = filters.Payload(event["body"])
            matching = _matching(event, subscribers, payload)
            filter_steps += payload.spent
            if planned and len(deliveries) + len(matching) > MAX_DELIVERIES:
                break
            planned.append(event)
            for limits, row, _ in matching:
                one = _NewDelivery(event, ids.mint("dlv"), limits, Placement.HELD)
                if row["deleted"] or event["body"] is None:
                    discarded.append(one)
                    continue
                if not row["disabled"]:
                    one.placement = self._queues.reserve(limits, now_s) if capacity > 0 else Placement.DUE
                    capacity -= one.placement is Placement.LEASED
                deliveries.append(one)
        return planned, discarded

    async def _write(
        self, connection: Any, events: list[Any], deliveries: list[_NewDelivery], discarded: list[_NewDelivery]
    ) -> set[int]:
        """Write the batch. Returns the `seq` of the events that this process relayed; another worker has the others."""
        rows = await connection.fetch(
            queries.OUTBOX_DONE,
            [event["seq"] for event in events],
            self._worker_id,
            self._lease,
            *_columns(deliveries),
            [int(one.placement) for one in deliveries],
            *_columns(discarded),
            ["payload_erased" if one.event["body"] is None else "endpoint_deleted" for one in discarded],
        )
        return {row["seq"] for row in rows}

    def _cancel_reservations(self, deliveries: Iterable[_NewDelivery]) -> None:
        for one in deliveries:
            if one.placement is Placement.LEASED:
                self._queues.cancel_reservation(one.limits)

    def _load_leased(self, deliveries: Iterable[_NewDelivery], lease_ends_s: float) -> None:
        now_s = time.monotonic()
        queues: dict[EndpointQueue, None] = {}
        for one in deliveries:
            if one.placement is Placement.LEASED:
                event = one.event
                job = DeliveryJob(
                    event["workspace_id"], one.id, event["event_id"], event["type"], one.limits.id, 0, 1, None,
                    event["accepted_at"], event["body"], lease_ends_s, None,
                )  # fmt: skip
                queues[self._queues.load(one.limits, job, now_s, claimed=False)] = None
        for queue in queues:
            self._start_new(queue)


def _by_type(rows: Iterable[Any]) -> dict[tuple[str, str], list[Subscriber]]:
    """Group subscribers by workspace and event type."""
    found: dict[tuple[str, str], list[Subscriber]] = defaultdict(list)
    for row in rows:
        found[row["workspace_id"], row["type"]].append((EndpointLimits.from_row(row), row, filters.read(row["filter"])))
    return found


def _matching(
    event: Any, subscribers: dict[tuple[str, str], list[Subscriber]], payload: filters.Payload
) -> list[Subscriber]:
    """The endpoints, each once, whose subscription and filter of the time of acceptance match the event."""
    accepted_at = event["accepted_at"]
    found: dict[str, Subscriber] = {}
    for subscriber in subscribers.get((event["workspace_id"], event["type"]), ()):
        limits, row, _ = subscriber
        if row["valid_from"] <= accepted_at < row["valid_to"] and limits.id != event["not_endpoint_id"]:
            found[limits.id] = subscriber
    return [subscriber for subscriber in found.values() if not subscriber[2] or payload.meets(subscriber[2])]


def _columns(deliveries: list[_NewDelivery]) -> list[list[Any]]:
    return [
        [one.event["seq"] for one in deliveries],
        [one.event["workspace_id"] for one in deliveries],
        [one.id for one in deliveries],
        [one.event["event_id"] for one in deliveries],
        [one.event["type"] for one in deliveries],
        [one.limits.id for one in deliveries],
        [one.event["accepted_at"] for one in deliveries],
    ]
