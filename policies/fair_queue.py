"""Divides work between flows by start-time fair queueing: the flow that has had the least goes next.

Each flow has a virtual time up to which its work is paid for. The next flow is the one with the lowest virtual time,
and its time then grows by the cost of what it got. So the cost of a piece of work may become known only after it was
chosen. A flow that comes back after a pause starts at the present virtual time: it saves up nothing, and it owes at
most its last piece of work. Of two flows that wait all the time, neither gets more than the other by more than the
costs of one piece of work of each. Source: Goyal, Vin and Cheng, "Start-Time Fair Queueing" (1996).
"""

import heapq
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

Flow = TypeVar("Flow", bound=Hashable)


class FairQueue(Generic[Flow]):
    """The flows that wait, and what each of them has had. `open` them, then take `next` and `charge` it, then `close`."""

    def __init__(self) -> None:
        self._now = 0.0
        self._paid_until: dict[Flow, float] = {}
        """Only of flows that are ahead of the present virtual time."""
        self._waiting: list[tuple[float, int, Flow]] = []
        self._order = 0

    def open(self, flows: Iterable[Flow]) -> None:
        """Let these flows wait. Among flows with equal claims, the first one goes first."""
        for flow in flows:
            self._push(flow)

    def next(self) -> Flow | None:
        """Return the flow that has had the least, and remove it until it is charged; None if no flow waits."""
        if not self._waiting:
            return None
        self._now, _, flow = heapq.heappop(self._waiting)
        return flow

    def charge(self, flow: Flow, cost: float, *, waits: bool) -> None:
        """Charge the flow that `next` returned with what it got. `waits`: it has more work."""
        self._paid_until[flow] = self._now + cost
        if waits:
            self._push(flow)

    def close(self) -> None:
        """Forget the flows that wait, but not what flows have had more than their share."""
        self._waiting.clear()
        self._paid_until = {flow: until for flow, until in self._paid_until.items() if until > self._now}

    def _push(self, flow: Flow) -> None:
        self._order += 1
        heapq.heappush(self._waiting, (max(self._now, self._paid_until.get(flow, 0.0)), self._order, flow))
