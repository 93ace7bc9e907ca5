"""The relay's batches while there is a backlog: the workspaces that have events take turns (`policies.turns`, ADR 13).

A batch looks at the next workspaces that have events and locks an equal number of events of each; what one leaves is
handed on to the others. The plan then takes the events in turn, by what they cost. An event that does not fit waits
for the next batch, and what a workspace has had too much counts against it there.
"""

import itertools
from collections import deque
from typing import Any, Final

from policies.turns import Turns, divide
from spine.webhooks import queries
from workers.webhooks.endpoint_queues import EndpointQueues
from workers.webhooks.relay_plan import COST_MAX, PART, Plan, Planner, Subscribers

EVENTS_MAX: Final = COST_MAX // 2
"""Events that one batch reads: as many as fit if each goes to one endpoint."""
_SUBSCRIBERS_MAX: Final = 5_000
"""Endpoints that are read for a batch with many types, of each pattern."""
_WORKSPACES_MAX: Final = 64
"""Workspaces that one batch looks at."""
_BYTES_MAX: Final = 8 * 1024 * 1024
"""Bytes of payloads that one batch reads, and one payload more of each workspace."""
_BYTES_OF_ONE: Final = 256 * 1024
"""A batch with less room than this for each workspace looks at fewer workspaces."""
_QUANTUM: Final = 32
"""What a workspace gets in a turn before the next one has its turn."""


async def find_subscribers(connection: Any, events: list[Any], page: int) -> list[Any]:
    """Return the subscribers to the events, of each pattern those of the next `page` endpoints."""
    rows: list[Any] = await connection.fetch(
        queries.SUBSCRIBERS_FIND,
        [event["workspace_id"] for event in events],
        [event["type"] for event in events],
        [event["accepted_at"] for event in events],
        [event["after_endpoint_id"] for event in events],
        page,
    )
    return rows


class WorkspaceTurns:
    """Plans batches of locked events, in turn by workspace. Remembers whose turn it is and what each has had."""

    def __init__(self, queues: EndpointQueues) -> None:
        self._queues = queues
        self._turns = Turns()
        self._place = ""
        """The workspace after which the next batch begins."""
        self._planned: dict[str, int] = {}
        """How many events the last batch planned of each workspace of which it left some."""
        self.backlogged: tuple[str, ...] = ()
        """The workspaces of which the last batch left events."""
        self.full: tuple[str, ...] = ()
        """The workspaces that may have events after the last batch: it may be worth to wait until one of them has room."""

    async def plan(self, connection: Any, plan: Plan, room: int, *, newest: bool, as_due: bool) -> bool:
        """Lock events with payloads of `room` bytes, and plan them. Returns whether more may wait.

        `newest`: take half from the newest end. Workspaces that hold all that they may here are left out. If all do, nothing
        is planned, or with `as_due` their deliveries are, to be written as due.
        """
        most = max(1, min(_WORKSPACES_MAX, room // _BYTES_OF_ONE))
        found = await connection.fetch(queries.OUTBOX_WAITING, self._place, most)
        all_waiting = {row["workspace_id"]: row["live"] for row in found}
        rooms = {workspace: self._queues.relay_room(workspace) for workspace in all_waiting}
        waiting = {workspace: live for workspace, live in all_waiting.items() if rooms[workspace] > 0}
        self.full = () if waiting else tuple(all_waiting)
        if self.full and not as_due:
            self.backlogged = self.full
            return True
        waiting = waiting or all_waiting
        batch = _Batch(connection, waiting, min(room, _BYTES_MAX))
        limit = min(EVENTS_MAX, self._queues.capacity(claimed=False) or EVENTS_MAX)
        rows = {
            workspace: min(count, 2 * self._planned.get(workspace, count), rooms[workspace] or count)
            for workspace, count in divide(limit, waiting).items()
        }
        await batch.lock(rows, newest=newest)
        if batch.size < limit // 2 and not batch.left_out:
            hungry = {
                workspace: waiting[workspace]
                for workspace in batch.unfinished
                if workspace not in self._planned and rooms[workspace] > rows[workspace]
            }
            await batch.lock(divide(limit - batch.size, hungry), newest=False)
        left: dict[str, int] = {}
        if batch.size:
            types = {(event["workspace_id"], event["type"], event["after_endpoint_id"]) for event in batch.events}
            page = max(1, min(PART, _SUBSCRIBERS_MAX // len(types)))
            subscribers = Subscribers(await find_subscribers(connection, batch.events, page), page)
            left = self._plan_in_turn(batch, Planner(self._queues, subscribers, plan, locked=True))
        self._note(batch, left)
        self.backlogged = tuple(
            workspace
            for workspace in all_waiting
            if workspace in left or workspace in batch.unfinished or workspace not in batch.taken
        )
        self.full = self.backlogged if len(all_waiting) < most else ()
        all_looked_at = len(batch.taken) == len(all_waiting) < most
        return bool(left or plan.parts or batch.unfinished or batch.left_out) or not all_looked_at

    def _plan_in_turn(self, batch: "_Batch", planner: Planner) -> dict[str, int]:
        """Plan the locked events until the transaction is full. Returns how many events of a workspace are left."""
        flows = {workspace: deque(events) for workspace, events in batch.taken.items() if events}
        self._turns.open({workspace: batch.waiting[workspace] for workspace in flows})
        while (workspace := self._turns.next()) is not None:
            flow, cost = flows[workspace], 0
            while flow and cost < _QUANTUM and (one := planner.add(flow[0])):
                cost += one
                flow.popleft()
            if not cost:
                break
            self._turns.charge(workspace, cost, waits=bool(flow))
        self._turns.close()
        return {workspace: len(flow) for workspace, flow in flows.items() if flow}

    def _note(self, batch: "_Batch", left: dict[str, int]) -> None:
        """Note where the next batch begins, and what it needs to read of workspaces that had too many."""
        self._planned = {workspace: max(1, len(batch.taken[workspace]) - count) for workspace, count in left.items()}
        for workspace, events in batch.taken.items():
            if events and left.get(workspace) == len(events):
                break
            self._place = workspace


class _Batch:
    """The events that one batch has locked, by workspace, in the order of the turns."""

    def __init__(self, connection: Any, waiting: dict[str, bool], room: int) -> None:
        self._connection = connection
        self._room = room
        self.waiting = waiting
        self.taken: dict[str, list[Any]] = {}
        self.unfinished: set[str] = set()
        """Workspaces that may have more events, because they had as many as they were asked for."""
        self.left_out = False
        """Whether events were left out because the payloads of the others are large."""
        self._oldest: dict[str, int] = {}
        self._known: set[int] = set()

    @property
    def events(self) -> list[Any]:
        """All locked events."""
        return [event for events in self.taken.values() for event in events]

    @property
    def size(self) -> int:
        """Number of locked events."""
        return sum(map(len, self.taken.values()))

    async def lock(self, rows: dict[str, int], *, newest: bool) -> None:
        """Lock that many further events of each workspace, from its oldest end, or half of them from its newest."""
        if not rows:
            return
        from_newest = [count // 2 if newest else 0 for count in rows.values()]
        from_oldest = [count - part for count, part in zip(rows.values(), from_newest, strict=True)]
        after = [self._oldest.get(workspace, 0) for workspace in rows]
        found: dict[str, list[Any]] = {workspace: [] for workspace in rows}
        bytes_max = max(1, self._room // len(rows))
        for row in await self._connection.fetch(
            queries.OUTBOX_TAKE, list(rows), after, from_oldest, from_newest, bytes_max
        ):
            if row["seq"] not in self._known:
                self._known.add(row["seq"])
                found[row["workspace_id"]].append(row)
        for (workspace, events), oldest in zip(found.items(), from_oldest, strict=True):
            self.unfinished.discard(workspace)
            if len(events) >= rows[workspace]:
                self.unfinished.add(workspace)
                self._oldest[workspace] = events[oldest - 1]["seq"]
            read = [event for event in events if not event["left_out"]]
            self.left_out = self.left_out or len(read) < len(events)
            self.taken.setdefault(workspace, []).extend(_from_both_ends(read, oldest))


def _from_both_ends(events: list[Any], oldest: int) -> list[Any]:
    """Return the events with the `oldest` first ones and the others, newest first, in turn."""
    if len(events) <= oldest:
        return events
    ends = itertools.zip_longest(events[:oldest], reversed(events[oldest:]))
    return [event for pair in ends for event in pair if event is not None]
