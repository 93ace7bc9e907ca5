"""The relay: reads events from the outbox and writes one delivery for each endpoint that was subscribed at accept time.

If this process has capacity, a delivery is leased to it as it is written, so it is sent without a claim.

While few events wait, it reads the oldest ones and writes their deliveries without a transaction around both. That
takes two round trips instead of six, but two workers may read the same event; then one of them finds it gone when it
writes.

With a backlog, the workspaces take turns (`workers.webhooks.relay_turns`), and half of each one's events are read from
its newest end, so that new events do not wait behind older ones. The events are locked when they are read, so that
several workers do not repeat each other's work. Beside these batches, a wakeup lets the events of the workspaces that
have no backlog pass, on a connection of its own and in two round trips.
"""

import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, Final

import asyncpg

from spine.kernel.settings import WorkSettings
from spine.kernel.wakeups import Wakeups
from spine.webhooks import queries
from workers.connection import DedicatedConnection
from workers.heartbeat import Heartbeat
from workers.webhooks.endpoint_queue import EndpointQueue
from workers.webhooks.endpoint_queues import EndpointQueues
from workers.webhooks.jobs import DeliveryJob, Placement
from workers.webhooks.relay_plan import NewDelivery, Plan, Planner, Subscribers
from workers.webhooks.relay_turns import WorkspaceTurns, find_subscribers

_EVENTS_MAX: Final = 64
"""Events that are read at once while there is no backlog. If there are as many, the workspaces take turns."""
_SMALL_BATCH: Final = 16
"""Events, or deliveries, up to which a batch is not locked: two workers may both do this work."""
_WORKSPACES_BESIDE: Final = 64
"""Workspaces that are looked at beside a backlog."""
_SMALL_PAGE: Final = 256
"""Endpoints of each pattern that are read for events that are not locked. An event with more is locked first."""


class Relay:
    """Relays batches of events. Calls `start_new` with each endpoint queue that got jobs."""

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        queues: EndpointQueues,
        wakeups: Wakeups,
        work: WorkSettings,
        heartbeat: Heartbeat,
        start_new: Callable[[EndpointQueue], None],
    ) -> None:
        self._db = DedicatedConnection(pool, async_commit=True)
        self._db_beside = DedicatedConnection(pool, async_commit=True)
        self._queues = queues
        self._wakeups = wakeups
        self._lease = timedelta(seconds=work.lease_s)
        self._heartbeat = heartbeat
        self._start_new = start_new
        self._turns = WorkspaceTurns(queues)
        self._place_beside = ""
        """The workspace after which the next look beside a backlog begins."""
        self.has_backlog = False
        """Whether the last batch left events in the outbox."""
        self._locking = False
        """Whether the last batch was so large that the next one is locked when it is read."""

    @property
    def waits_for_room(self) -> bool:
        """Whether every workspace that the last batch left events of holds all that it may here."""
        full = self._turns.full
        return bool(full) and all(self._queues.relay_room(workspace) <= 0 for workspace in full)

    async def close(self) -> None:
        """Return the connections to the pool."""
        await self._db.close()
        await self._db_beside.close()

    async def relay_batch(self, *, as_due: bool = False) -> bool:
        """Relay one batch. Returns True if more events may wait.

        With a backlog, events of workspaces that hold all that they may here wait; with `as_due` they are written as due.
        """
        with self._queues.bodies.reserved_batch() as room:
            return await self._relay_batch(room, as_due=as_due)

    async def _relay_batch(self, room: int, *, as_due: bool) -> bool:
        """Relay a batch whose payloads have `room` bytes."""
        plan = Plan()
        async with self._db.connection() as connection:
            lease_ends_s = time.monotonic() + self._lease.total_seconds()
            try:
                if self._locking:
                    async with connection.transaction():
                        more = await self._turns.plan(connection, plan, room, newest=self.has_backlog, as_due=as_due)
                        relayed = await self._write(connection, plan, locked=True)
                else:
                    limit = min(_EVENTS_MAX, self._queues.capacity(claimed=False) or _EVENTS_MAX)
                    more = await self._plan_unlocked(connection, plan, limit, room, queries.OUTBOX_READ)
                    relayed = await self._write(connection, plan, locked=False)
            except BaseException:
                self._cancel_reservations(plan.deliveries)
                raise
        self._locking = more or max(plan.size, len(plan.deliveries)) > _SMALL_BATCH
        self.has_backlog = more
        self._load_relayed(plan, relayed, lease_ends_s)
        if more and plan.size and len(self._heartbeat.live_workers) > 1:
            self._wakeups.wake("relay")  # the others: this one goes on
        return more

    async def relay_beside(self) -> bool:
        """Relay a few events of workspaces of which the last batch left none. Returns whether there were any.

        So they need not wait for the batch that is under way, which other workspaces fill.
        """
        plan = Plan()
        with self._queues.bodies.reserved_batch() as room:
            async with self._db_beside.connection() as connection:
                lease_ends_s = time.monotonic() + self._lease.total_seconds()
                looked_at = self._place_beside, _WORKSPACES_BESIDE, self._turns.backlogged
                try:
                    await self._plan_unlocked(
                        connection, plan, _SMALL_BATCH, room, queries.OUTBOX_READ_BESIDE, *looked_at
                    )
                    relayed = await self._write(connection, plan, locked=False)
                except BaseException:
                    self._cancel_reservations(plan.deliveries)
                    raise
            self._load_relayed(plan, relayed, lease_ends_s)
        self._place_beside = plan.events[-1]["workspace_id"] if plan.events else ""
        return bool(plan.events)

    def _load_relayed(self, plan: Plan, relayed: set[int], lease_ends_s: float) -> None:
        """Put the leased deliveries of the events that this process relayed into their queues."""
        deliveries = plan.deliveries
        if len(relayed) < plan.size:
            self._cancel_reservations(one for one in deliveries if one.event["seq"] not in relayed)
            deliveries = [one for one in deliveries if one.event["seq"] in relayed]
        self._load_leased(deliveries, lease_ends_s)
        if any(one.placement is Placement.DUE for one in deliveries):
            self._wakeups.wake("deliver")

    async def _plan_unlocked(
        self, connection: Any, plan: Plan, limit: int, room: int, query: str, *args: object
    ) -> bool:
        """Plan at most `limit` events that the query reads. Returns whether more may wait."""
        rows = await connection.fetch(query, limit, _SMALL_BATCH, _SMALL_PAGE, room, *args)
        events = [row for row in rows if row["seq"] is not None]
        subscriptions = rows[len(events) :]
        if len(events) > _SMALL_BATCH:
            subscriptions = await find_subscribers(connection, events, _SMALL_PAGE)
        planner = Planner(self._queues, Subscribers(subscriptions, _SMALL_PAGE), plan, locked=False)
        for event in events:
            planner.add(event)
        cut = sum(len(event["body"] or b"") for event in events) >= room
        return len(events) == limit or plan.size < len(events) or cut

    async def _write(self, connection: Any, plan: Plan, *, locked: bool) -> set[int]:
        """Write the plan. Returns the `seq` of the events that this process relayed; another worker has the others."""
        if not plan.size:
            return set()
        if plan.parts:
            await connection.execute(
                queries.OUTBOX_ADVANCE,
                [event["workspace_id"] for event, _ in plan.parts],
                [event["seq"] for event, _ in plan.parts],
                [last for _, last in plan.parts],
            )
        rows = await connection.fetch(
            queries.OUTBOX_DONE,
            [event["seq"] for event in plan.events],
            self._heartbeat.worker_id,
            self._lease,
            *plan.columns,
            [event["seq"] for event, _ in plan.parts],
            locked,
        )
        return {row["seq"] for row in rows}

    def _cancel_reservations(self, deliveries: Iterable[NewDelivery]) -> None:
        for one in deliveries:
            if one.placement is Placement.LEASED:
                self._queues.cancel_reservation(one.limits)

    def _load_leased(self, deliveries: Iterable[NewDelivery], lease_ends_s: float) -> None:
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
