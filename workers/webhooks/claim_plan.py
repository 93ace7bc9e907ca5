"""Decides where each row of a claim goes, and reserves the places and the bytes of those that are leased."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from workers.webhooks.endpoint_queues import EndpointQueues
from workers.webhooks.jobs import EndpointLimits, Placement


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """A row to lease. It has limits if a place is reserved for it, and a reason if it ends without an attempt."""

    row: Any
    limits: EndpointLimits | None
    discard_reason: str = ""


class ClaimPlan:
    """The decisions on the rows of one claim, in their order.

    A row for which its workspace has no room is left as it is. The later rows of this workspace are left too, so that
    small bodies do not overtake a large one for ever.
    """

    def __init__(self, queues: EndpointQueues, rows: Iterable[Any], now_s: float) -> None:
        self._queues = queues
        self._batch_room = queues.bodies.batch_room()
        self._size = 0
        self._sizes: dict[str, int] = {}  # planned bytes by workspace
        self._events: set[str] = set()
        self.written: list[tuple[Any, Placement]] = []
        """The rows to write, with their placements."""
        self.leased: dict[str, PlannedRow] = {}
        """The rows to lease that are not loaded yet, by id."""
        self.parked = 0
        """Number of rows to park."""
        self.left = 0
        """Number of rows for which there is no room."""
        full: set[str] = set()
        for row in rows:
            if row["workspace_id"] in full:
                self.left += 1
            elif self._decide(row, now_s) is Placement.DUE:
                self.left += 1
                full.add(row["workspace_id"])

    def cancel(self) -> None:
        """Free what is reserved for rows that were not loaded. Another worker may have leased them."""
        for one in self.leased.values():
            if one.limits is not None:
                self._queues.cancel_reservation(one.limits)
        self.leased.clear()
        self._queues.bodies.reserve(-self._size)
        self._size = 0

    def _decide(self, row: Any, now_s: float) -> Placement:
        reason = _discard_reason(row)
        if reason is not None:
            self.leased[row["id"]] = PlannedRow(row, None, reason)
            placement = Placement.LEASED
        elif row["disabled"]:
            placement = Placement.HELD
        else:
            placement = self._reserve(row, now_s)
        if placement is Placement.PARKED:
            self.parked += 1
        if placement is not Placement.DUE:
            self.written.append((row, placement))
        return placement

    def _reserve(self, row: Any, now_s: float) -> Placement:
        limits = EndpointLimits.from_row(row)
        placement = self._queues.reserve(limits, now_s)
        if placement is not Placement.LEASED:
            return placement
        event_id, size, bodies = row["event_id"], row["size"], self._queues.bodies
        if event_id not in self._events and event_id not in bodies:
            planned = self._sizes.get(limits.workspace_id, 0)
            use = self._queues.queue(limits).workspace
            if not bodies.admits(use, size, planned) or (self._size and self._size + size > self._batch_room):
                self._queues.cancel_reservation(limits)
                return Placement.DUE
            self._events.add(event_id)
            self._sizes[limits.workspace_id] = planned + size
            self._size += size
            bodies.reserve(size)
        self.leased[row["id"]] = PlannedRow(row, limits)
        return placement


def _discard_reason(row: Any) -> str | None:
    """Why a delivery cannot be attempted again; None if it can."""
    if row["deleted"]:
        return "endpoint_deleted"
    if row["expired"]:
        return "expired"
    if row["size"] is None:
        return "payload_erased"
    return None
