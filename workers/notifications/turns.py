"""Claims messages by turns: of workspaces while messages queue up, and of accounts whose messages wait.

Each look is bounded. It visits a number of workspaces in the order of their ids and goes on there at the next look; it
also takes in the workspaces of the messages that are due for the longest and for the shortest time.
"""

import time
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from policies.send_turns import SendQueue, take_turns
from workers.connection import Connection
from workers.notifications.limits import SendLimits
from workers.notifications.paces import lock_paces, write_paces

WORKSPACES_FIND: Final = """
    WITH RECURSIVE visited AS (
        (SELECT workspace_id, due_at, 1 AS n FROM spine.sends_open WHERE workspace_id > $1 ORDER BY workspace_id, due_at LIMIT 1)
        UNION ALL
        SELECT o.workspace_id, o.due_at, v.n + 1 FROM visited v CROSS JOIN LATERAL (
            SELECT workspace_id, due_at FROM spine.sends_open
             WHERE workspace_id > v.workspace_id ORDER BY workspace_id, due_at LIMIT 1) o
         WHERE v.n < $2
    ), found AS (
        SELECT workspace_id, due_at FROM visited WHERE due_at <= now()
        UNION ALL (SELECT workspace_id, due_at FROM spine.sends_open WHERE due_at <= now() ORDER BY due_at LIMIT $3)
        UNION ALL (SELECT workspace_id, due_at FROM spine.sends_open WHERE due_at <= now() ORDER BY due_at DESC LIMIT $3)
    )
    SELECT NULL AS workspace_id, NULL AS live, max(workspace_id) AS up_to FROM visited HAVING count(*) >= $2
    UNION ALL
    SELECT w.workspace_id, w.env = 'live', NULL
      FROM (SELECT DISTINCT workspace_id FROM found) f JOIN spine.workspaces w USING (workspace_id)
"""
"""Returns workspaces with due messages. A row with `up_to` says where the next look goes on, if this one saw not all."""

WORKSPACES_CLAIM: Final = """
    WITH picked AS MATERIALIZED (
        SELECT o.ctid FROM unnest($3::text[], $4::integer[]) AS turn (workspace_id, calls) CROSS JOIN LATERAL (
            SELECT ctid FROM spine.sends_open
             WHERE workspace_id BETWEEN turn.workspace_id AND turn.workspace_id AND due_at <= now()
             ORDER BY workspace_id, due_at LIMIT turn.calls FOR UPDATE SKIP LOCKED) o
    )
    UPDATE spine.sends_open o SET due_at = now() + $2::interval, leased_by = $1, waits_for = NULL
     WHERE o.ctid = ANY (ARRAY(SELECT ctid FROM picked)) RETURNING o.workspace_id, o.id
"""
"""Leases the longest due messages of each workspace. With `=` instead of BETWEEN, Postgres may read the index of due times,
and all due messages of other workspaces with it."""

WAITING_FIND: Final = """
    WITH RECURSIVE visited AS (
        (SELECT waits_for, workspace_id, 1 AS n FROM spine.sends_open WHERE waits_for > $1 ORDER BY waits_for, accepted_at LIMIT 1)
        UNION ALL
        SELECT o.waits_for, o.workspace_id, v.n + 1 FROM visited v CROSS JOIN LATERAL (
            SELECT waits_for, workspace_id FROM spine.sends_open
             WHERE waits_for > v.waits_for ORDER BY waits_for, accepted_at LIMIT 1) o
         WHERE v.n < $2
    )
    SELECT a.id, a.workspace_id, a.env = 'live' AS live, a.rate_per_s, p.account_id IS NOT NULL AS paced,
           coalesce(extract(epoch FROM p.next_call_at - now()), 0)::float8 AS next_call_in_s
      FROM visited v JOIN spine.provider_accounts a ON a.workspace_id = v.workspace_id AND a.id = v.waits_for
      LEFT JOIN spine.provider_paces p ON p.workspace_id = a.workspace_id AND p.account_id = a.id ORDER BY a.id
"""
"""Returns the accounts for which messages wait, and when the next call of each may start."""

WAITING_CLAIM: Final = """
    WITH picked AS MATERIALIZED (
        SELECT o.ctid, turn.account_id FROM unnest($3::text[], $4::integer[]) AS turn (account_id, calls) CROSS JOIN LATERAL (
            SELECT ctid FROM spine.sends_open WHERE waits_for = turn.account_id
             ORDER BY accepted_at LIMIT turn.calls FOR UPDATE SKIP LOCKED) o
    )
    UPDATE spine.sends_open o SET due_at = now() + $2::interval, leased_by = $1, waits_for = NULL
      FROM picked WHERE o.ctid = picked.ctid RETURNING o.workspace_id, o.id, picked.account_id
"""

BATCH: Final = 64
"""The most messages that one claim takes: whoever comes meanwhile waits for its end."""
_VISIT: Final = 256
_SAMPLE: Final = 64
_LOOK_S: Final = 1.0
"""How often a worker looks for messages that another one left waiting."""
_PAUSE_S: Final = 0.2
_PAUSE_MIN_S: Final = 0.01


class Turns:
    """Finds the queues that have messages to send, and claims from each what its turns allow."""

    def __init__(self, worker_id: str, lease: timedelta, limits: SendLimits) -> None:
        self._worker_id = worker_id
        self._lease = lease
        self._limits = limits
        self._workspaces_up_to = ""
        self._accounts_up_to = ""
        self._seen: set[str] = set()
        self._next_look_s = 0.0
        self.backlog = False
        """Whether more messages are due than were claimed."""
        self.pause_s = _LOOK_S
        """How long to wait for a wakeup after a claim that took nothing."""

    def note_waiting(self, account_ids: Sequence[str]) -> None:
        """Look soon for messages that wait for these accounts."""
        self._seen.update(account_ids)
        self._limits.waiting = self._limits.waiting | set(account_ids)

    async def claim(self, connection: Connection) -> dict[tuple[str, str], str | None]:
        """Claim by turns. Returns the keys; with the account for which the message has waited."""
        now_s = time.monotonic()
        workspaces = await self._find_workspaces(connection) if self.backlog or self._limits.is_crowded else []
        accounts: list[Any] = []
        if self._limits.waiting or now_s >= self._next_look_s:
            self._next_look_s = now_s + _LOOK_S
            accounts = await self._find_waiting(connection)
        queues = [
            SendQueue(row["id"], row["workspace_id"], row["live"], self._limits.calls_now(row)) for row in accounts
        ]
        queues += [SendQueue(row["workspace_id"], row["workspace_id"], row["live"], BATCH) for row in workspaces]
        given = take_turns(queues, self._limits.by_workspace, self._limits.free, BATCH)
        claimed: dict[tuple[str, str], str | None] = {}
        turns = [(row, given[row["id"]]) for row in accounts if row["id"] in given]
        if turns:
            claimed |= await self._claim_waiting(connection, turns)
        due = {row["workspace_id"]: given[row["workspace_id"]] for row in workspaces if row["workspace_id"] in given}
        if due:
            rows = await connection.fetch(WORKSPACES_CLAIM, self._worker_id, self._lease, list(due), list(due.values()))
            claimed |= {(row["workspace_id"], row["id"]): None for row in rows}
            taken = Counter(row["workspace_id"] for row in rows)
            self.backlog = len(due) < len(workspaces) or any(taken[id] == calls for id, calls in due.items())
        else:
            self.backlog = bool(workspaces)
        self.backlog = self.backlog or bool(self._workspaces_up_to)
        self.pause_s = self._pause_s(accounts)
        return claimed

    @property
    def saw_all(self) -> bool:
        """Whether the last look came to the end of all workspaces."""
        return not self._workspaces_up_to

    def _pause_s(self, accounts: Sequence[Any]) -> float:
        """How long nothing can be claimed, unless a wakeup comes or a call ends."""
        paces_s: list[float] = [row["next_call_in_s"] for row in accounts if row["rate_per_s"] is not None]
        longest_s = _PAUSE_S if accounts or self.backlog else _LOOK_S
        return max(_PAUSE_MIN_S, min([longest_s, *paces_s]))

    async def _find_workspaces(self, connection: Connection) -> list[Any]:
        rows = await connection.fetch(WORKSPACES_FIND, self._workspaces_up_to, _VISIT, _SAMPLE)
        self._workspaces_up_to = next((row["up_to"] for row in rows if row["up_to"] is not None), "")
        return [row for row in rows if row["up_to"] is None]

    async def _find_waiting(self, connection: Connection) -> list[Any]:
        rows = await connection.fetch(WAITING_FIND, self._accounts_up_to, _VISIT)
        self._seen.update(row["id"] for row in rows)
        self._accounts_up_to = rows[-1]["id"] if len(rows) == _VISIT else ""
        if not self._accounts_up_to:
            self._limits.waiting, self._seen = frozenset(self._seen), set()
        return list(rows)

    async def _claim_waiting(
        self, connection: Connection, turns: Sequence[tuple[Any, int]]
    ) -> dict[tuple[str, str], str | None]:
        async with connection.transaction():
            rated = [row for row, _ in turns if row["rate_per_s"] is not None]
            paces = await lock_paces(connection, rated) if rated else {}
            calls = {row["id"]: count for row, count in turns if row["rate_per_s"] is None}
            calls |= {row["id"]: min(count, paces[row["id"]].calls) for row, count in turns if row["id"] in paces}
            rows = await connection.fetch(
                WAITING_CLAIM, self._worker_id, self._lease, list(calls), list(calls.values())
            )
            await write_paces(connection, paces, Counter(row["account_id"] for row in rows))
        return {(row["workspace_id"], row["id"]): row["account_id"] for row in rows}
