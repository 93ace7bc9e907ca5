"""Which due rows a claim looks at: the longest due, or while there is a backlog those of each workspace in turn."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from spine.webhooks import queries
from workers.connection import Connection
from workers.heartbeat import Heartbeat
from workers.webhooks.endpoint_queues import EndpointQueues

_PROBES: Final = 500
"""Workspaces that one look walks to. Each costs some microseconds, also if none of its rows is due yet."""
_WORKSPACES: Final = 32
"""Workspaces whose rows one look returns. The next look continues behind them."""
_SPREAD: Final = 4
"""Workers that look at different rows of one backlog. More of them would read too many rows that they do not choose."""


class DueTurns:
    """Looks at due rows, without a lock. Keeps the place of the walk over the workspaces.

    A look that returns as many rows as it asked for has found a backlog. Then a row that has just become due could wait
    behind all others, so the following looks take turns: over the workspaces, and in each from both ends of what is due.
    They end when a whole round has found no workspace with more rows than its turn.
    """

    def __init__(self, queues: EndpointQueues, heartbeat: Heartbeat) -> None:
        self._queues = queues
        self._heartbeat = heartbeat
        self._position = ""
        self.has_backlog = False
        """Whether the next look takes turns."""
        self._round_has_more = False

    async def look(self, connection: Connection, limit: int) -> list[Any]:
        """Return up to about `limit` due rows, with what decides on their placement."""
        workers = sorted(self._heartbeat.live_workers)
        count = min(len(workers), _SPREAD)
        me = workers.index(self._heartbeat.worker_id) % count if self._heartbeat.worker_id in workers else 0
        if not self.has_backlog:
            rows: list[Any] = await connection.fetch(queries.DUE_LOOK, limit, max(1, count), me)
            self.has_backlog = len(rows) >= limit
            return rows
        full = self._queues.full_workspaces(claimed=True)
        rows = await connection.fetch(
            queries.DUE_LOOK_IN_TURNS, limit, max(1, count), me, self._position, full, _PROBES, _WORKSPACES
        )
        round_ended = rows[0]["probes"] < _PROBES and rows[0]["found"] < _WORKSPACES
        self._position = "" if round_ended else rows[0]["position"]
        due = [row for row in rows if row["id"] is not None]
        self._round_has_more |= rows[0]["full_is_due"] or _has_more(due, rows[0]["per_end"])
        if round_ended:
            self.has_backlog, self._round_has_more = self._round_has_more, False
        return due

    def left(self) -> None:
        """Note that rows were left due for lack of room. A look in turns skips such workspaces until they have room."""
        self.has_backlog = self._round_has_more = True


def _has_more(rows: Sequence[Any], per_end: int) -> bool:
    """Whether a workspace had as many rows as its turn."""
    return any(count >= 2 * per_end for count in Counter(row["workspace_id"] for row in rows).values())
