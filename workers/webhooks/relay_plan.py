"""The plan of one batch of the relay: which deliveries it writes, and what each event costs its workspace.

An event with many endpoints is planned in parts, in the order of the endpoints' ids. The outbox row keeps how far it
came. So no batch, and no read of subscribers, grows with the fan-out of one event.
"""

import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any, Final

from spine.kernel import ids
from spine.webhooks import filters
from workers.webhooks.endpoint_queues import EndpointQueues
from workers.webhooks.jobs import EndpointLimits, Placement

COST_MAX: Final = 1000
"""What a transaction may cost before its last event, so that it ends soon, and other events need not wait long for it.

An event costs 1, and 1 for each delivery. A cost of 1000 takes about 20 ms.
"""
PART: Final = 1000
"""Endpoints of one event that one transaction plans at most."""
_SUBSCRIBERS_OF_ONE_COST: Final = 32
_BYTES_OF_ONE_COST: Final = 32_768
_STEPS_OF_ONE_COST: Final = 200
"""Subscribers that are compared, bytes of payload, and steps of filters that cost about as much as one delivery."""

Subscriber = tuple[EndpointLimits, Any, filters.Json | None]
"""The limits of an endpoint, the row of its subscription, and the parsed filter of that row."""


@dataclass(slots=True)
class NewDelivery:
    """A delivery to write, and its placement."""

    event: Any
    id: str
    limits: EndpointLimits
    placement: Placement


class Subscribers:
    """The subscribers to the types of a batch's events: of each pattern those of the next `page` endpoints."""

    def __init__(self, rows: list[Any], page: int) -> None:
        self._found: dict[tuple[str, str, str | None], list[Subscriber]] = defaultdict(list)
        self._last: dict[tuple[str, str, str | None], str] = {}
        """The last endpoint whose patterns are all known, if there are further endpoints."""
        for row in rows:
            self._found[_key(row)].append((EndpointLimits.from_row(row), row, filters.read(row["filter"])))
        if len(rows) >= page:
            self._find_last(rows, page)

    def _find_last(self, rows: list[Any], page: int) -> None:
        sizes = Counter((_key(row), row["pattern"]) for row in rows)
        ends: dict[tuple[tuple[str, str, str | None], str], str] = {}
        for row in rows:
            of = (_key(row), row["pattern"])
            ends[of] = max(ends.get(of, ""), row["endpoint_id"])
        for of, size in sizes.items():
            if size >= page:
                self._last[of[0]] = min(self._last.get(of[0], ends[of]), ends[of])

    def of(self, event: Any) -> tuple[list[Subscriber], str | None]:
        """Return the event's next endpoints, each once, whose subscription was in force when it was accepted.

        The second value is the id of the last one that was looked at, if there may be further ones after it.
        """
        key, accepted_at, excluded = _key(event), event["accepted_at"], event["not_endpoint_id"]
        last = self._last.get(key) if self._last else None
        found: dict[str, Subscriber] = {}
        for subscriber in self._found.get(key, ()):
            limits, row, _ = subscriber
            if row["valid_from"] <= accepted_at < row["valid_to"] and limits.id != excluded:
                found[limits.id] = subscriber
        if last is None and len(found) <= PART:
            return list(found.values()), None
        known = sorted(id for id in found if last is None or id <= last)
        if len(known) > PART:
            known = known[:PART]
            last = known[-1]
        return [found[id] for id in known], last


def _key(row: Any) -> tuple[str, str, str | None]:
    return row["workspace_id"], row["type"], row["after_endpoint_id"]


@dataclass(slots=True)
class Plan:
    """What one transaction of the relay writes."""

    deliveries: list[NewDelivery] = field(default_factory=list)
    discarded: list[NewDelivery] = field(default_factory=list)
    """Deliveries that are dead at once."""
    events: list[Any] = field(default_factory=list)
    """Events whose deliveries are then all written: their outbox rows are deleted."""
    parts: list[tuple[Any, str]] = field(default_factory=list)
    """Events with further endpoints, each with the endpoint up to which its deliveries are then written."""
    cost: int = 0
    filter_steps: int = 0

    @property
    def size(self) -> int:
        """Number of planned events."""
        return len(self.events) + len(self.parts)

    @property
    def columns(self) -> list[list[Any]]:
        """The columns of the deliveries and of the discarded ones, in the order of `spine.webhooks.queries.OUTBOX_DONE`."""
        return [
            *_columns(self.deliveries),
            [int(one.placement) for one in self.deliveries],
            *_columns(self.discarded),
            ["payload_erased" if one.event["body"] is None else "endpoint_deleted" for one in self.discarded],
        ]


class Planner:
    """Adds events to a plan until it costs enough."""

    def __init__(self, queues: EndpointQueues, subscribers: Subscribers, plan: Plan, *, locked: bool) -> None:
        self._queues = queues
        self._subscribers = subscribers
        self._plan = plan
        self._locked = locked
        """Whether this process has locked the events, so that it may write a part of one."""
        self._now_s = time.monotonic()
        self._capacity = queues.capacity(claimed=False)

    def add(self, event: Any) -> int:
        """Plan the event, or its next part, and return its cost; 0 if it has to wait for another transaction.

        Adds to the plan also if it raises, so that the caller can cancel the reservations.
        """
        plan = self._plan
        if plan.cost >= COST_MAX or plan.filter_steps > filters.STEPS_OF_A_BATCH:
            return 0
        subscribers, last = self._subscribers.of(event)
        if not self._locked and (last is not None or event["after_endpoint_id"] is not None):
            return 0
        matching, steps = subscribers, 0
        if any(one[2] for one in subscribers):
            payload = filters.Payload(event["body"])
            matching = [one for one in subscribers if not one[2] or payload.meets(one[2])]
            steps = payload.spent
            plan.filter_steps += steps
        if last is None:
            plan.events.append(event)
        else:
            plan.parts.append((event, last))
        for subscriber in matching:
            self._add_delivery(event, subscriber)
        size = 0 if event["body"] is None else len(event["body"])
        cost = 1 + len(matching) + len(subscribers) // _SUBSCRIBERS_OF_ONE_COST
        cost += size // _BYTES_OF_ONE_COST + steps // _STEPS_OF_ONE_COST
        plan.cost += cost
        return cost

    def _add_delivery(self, event: Any, subscriber: Subscriber) -> None:
        limits, row, _ = subscriber
        one = NewDelivery(event, ids.mint("dlv"), limits, Placement.HELD)
        if row["deleted"] or event["body"] is None:
            self._plan.discarded.append(one)
            return
        if not row["disabled"]:
            one.placement = self._queues.reserve(limits, self._now_s) if self._capacity > 0 else Placement.DUE
            self._capacity -= one.placement is Placement.LEASED
        self._plan.deliveries.append(one)


def _columns(deliveries: list[NewDelivery]) -> list[list[Any]]:
    return [
        [one.event["seq"] for one in deliveries],
        [one.event["workspace_id"] for one in deliveries],
        [one.id for one in deliveries],
        [one.event["event_id"] for one in deliveries],
        [one.event["type"] for one in deliveries],
        [one.limits.id for one in deliveries],
        [one.event["accepted_at"] for one in deliveries],
    ]
