"""Retention of rows that are not partitioned: ended messages with their attempts and timeline, receipts, sandbox calls, replays.

Rows are looked at in the order of their primary keys, workspace by workspace, since an id holds the time of its creation:
that needs no further index. Each statement looks at a bounded number of rows, and the next one continues after the last. A row
that has not ended stays, and so do contacts, templates and preferences, which are no history.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final, NamedTuple

from workers.connection import Connection
from workers.maintenance.lease import Lease

BATCH: Final = 1000
"""Rows that one statement looks at or deletes, at most."""

WORKSPACES: Final = "SELECT workspace_id FROM spine.workspaces WHERE workspace_id > $1 ORDER BY workspace_id LIMIT $2"
_WITH_PAST: Final = """
    SELECT w.workspace_id
      FROM unnest($1::text[]) AS w (workspace_id)
     CROSS JOIN LATERAL (
           SELECT FROM spine.{table} t
            WHERE t.workspace_id = w.workspace_id AND t.{key} < '{prefix}_' || spine.ulid_time(now() - $2::interval) LIMIT 1
       ) t
"""
"""Those of the workspaces `$1` that have rows whose id is older than the retention `$2`."""
_PAST: Final = """
        SELECT t.{key} AS id, t.ctid AS place FROM spine.{table} t
         WHERE t.workspace_id = $1 AND t.{key} > $2 AND t.{key} < '{prefix}_' || spine.ulid_time(now() - $4::interval)
         ORDER BY t.{key} LIMIT $3
"""
"""The next `$3` rows of the workspace `$1` after the id `$2` whose id is older than the retention `$4`."""

_OF_OPEN_MESSAGE: Final = """
    EXISTS (SELECT FROM spine.attempts a JOIN spine.messages m ON m.workspace_id = a.workspace_id AND m.id = a.message_id
             WHERE a.workspace_id = t.workspace_id AND a.id = t.attempt_id AND m.ended_at IS NULL)
"""


class History(NamedTuple):
    """A table whose rows are deleted by their own age, unless `condition` keeps them."""

    table: str
    key: str
    prefix: str
    condition: str

    @property
    def find(self) -> str:
        """Return the statement that finds the workspaces with old rows."""
        return _WITH_PAST.format(table=self.table, key=self.key, prefix=self.prefix)

    @property
    def past(self) -> str:
        """Return the statement that looks at the next old rows."""
        return _PAST.format(table=self.table, key=self.key, prefix=self.prefix)

    @property
    def delete(self) -> str:
        """Return the statement that looks at the next old rows and deletes those whose time has passed."""
        return f"""
            WITH seen AS MATERIALIZED ({self.past}), deleted AS (
                DELETE FROM spine.{self.table} t USING seen
                 WHERE t.ctid = seen.place AND t.{self.key} = seen.id AND {self.condition}
                RETURNING 1
            )
            SELECT max(id) AS last, count(*) AS seen, (SELECT count(*) FROM deleted) AS deleted FROM seen
        """  # noqa: S608  # our own names


HISTORIES: Final = (
    History("timeline_entries", "id", "tme", r"t.subject_id NOT LIKE 'msg\_%'"),  # those of a message go with it
    History("receipts", "id", "rct", f"t.received_at < now() - $4::interval AND NOT {_OF_OPEN_MESSAGE}"),
    History("sandbox_calls", "attempt_id", "att", f"t.taken_at < now() - $4::interval AND NOT {_OF_OPEN_MESSAGE}"),
    History("replays", "id", "rpl", "t.status IN ('done', 'cancelled') AND t.updated_at < now() - $4::interval"),
)

_ENDED: Final = "m.ended_at < now() - ${n}::interval AND m.updated_at < now() - ${n}::interval"
MESSAGES: Final = History("messages", "id", "msg", _ENDED.format(n=4))
"""Their attempts and timeline go before them, so they are not deleted by `MESSAGES.delete`."""
MESSAGES_PAST: Final = f"""
    WITH seen AS MATERIALIZED ({MESSAGES.past})
    SELECT seen.id, {MESSAGES.condition} AS ended
      FROM seen JOIN LATERAL (
               SELECT * FROM spine.messages m WHERE m.workspace_id = $1 AND m.id = seen.id LIMIT 1
           ) m ON true
     ORDER BY seen.id
"""  # noqa: S608  # our own names
_OF_MESSAGES: Final = """
    DELETE FROM spine.{table} t
     WHERE ctid = ANY (ARRAY(
         SELECT c.place FROM unnest($2::text[]) AS m (id)
          CROSS JOIN LATERAL (
                SELECT c.ctid AS place FROM spine.{table} c
                 WHERE c.workspace_id = $1 AND c.{column} = m.id {condition} LIMIT $3
            ) c LIMIT $3))
"""
MESSAGE_PARTS: Final = (
    _OF_MESSAGES.format(table="timeline_entries", column="subject_id", condition="AND c.at < now() - interval '1 day'"),
    _OF_MESSAGES.format(table="attempts", column="message_id", condition=""),
)
"""Delete at most `$3` entries, and attempts, of the messages `$2` of workspace `$1`. A younger entry cannot be deleted yet."""
MESSAGES_DELETE: Final = f"""
    DELETE FROM spine.messages m USING unnest($2::text[]) AS u (id)
     WHERE m.workspace_id = $1 AND m.id = u.id AND {_ENDED.format(n=3)}
       AND NOT EXISTS (SELECT FROM spine.attempts a WHERE a.workspace_id = $1 AND a.message_id = u.id)
       AND NOT EXISTS (SELECT FROM spine.timeline_entries t WHERE t.workspace_id = $1 AND t.subject_id = u.id)
       AND NOT EXISTS (SELECT FROM spine.sends_open o WHERE o.workspace_id = $1 AND o.id = u.id)
"""  # noqa: S608  # our own names
SANDBOX_RECEIPTS_DELETE: Final = """
    DELETE FROM spine.sandbox_receipts
     WHERE ctid = ANY (ARRAY(
         SELECT ctid FROM spine.sandbox_receipts WHERE due_at < now() - $2::interval ORDER BY due_at, seq LIMIT $1))
"""
"""Receipts that could not be applied for the whole retention."""
RECIPIENT_PACES_DELETE: Final = """
    DELETE FROM spine.recipient_paces
     WHERE ctid = ANY (ARRAY(
         SELECT ctid FROM spine.recipient_paces WHERE greatest(used_until, queued_until) < now()
          ORDER BY greatest(used_until, queued_until) LIMIT $1 FOR UPDATE SKIP LOCKED))
"""
"""A person who is not held back has the same pace without a row."""


class Retention:
    """Deletes what is past the retention, in batches of `batch` rows, each in its own transaction."""

    def __init__(self, lease: Lease, retention: timedelta, batch: int = BATCH) -> None:
        self._lease = lease
        self._retention = retention
        self._batch = batch

    async def delete(self, connection: Connection) -> None:
        """Go through all tables of all workspaces once. Raises LeaseLostError."""
        after = ""
        while page := await self._paced(connection.fetch, WORKSPACES, after, self._batch):
            ids = [row["workspace_id"] for row in page]
            for row in await self._paced(connection.fetch, MESSAGES.find, ids, self._retention):
                await self._delete_messages(connection, row["workspace_id"])
            for history in HISTORIES:
                for row in await self._paced(connection.fetch, history.find, ids, self._retention):
                    await self._delete_history(connection, history, row["workspace_id"])
            after = ids[-1]
        await self._delete_while_full(connection, SANDBOX_RECEIPTS_DELETE, self._batch, self._retention)
        await self._delete_while_full(connection, RECIPIENT_PACES_DELETE, self._batch)

    async def _delete_history(self, connection: Connection, history: History, workspace_id: str) -> None:
        last = ""
        while True:
            found: Any = await self._paced(
                connection.fetchrow, history.delete, workspace_id, last, self._batch, self._retention
            )
            if found["seen"] < self._batch:
                return
            last = found["last"]

    async def _delete_messages(self, connection: Connection, workspace_id: str) -> None:
        last = ""
        while True:
            seen: Any = await self._paced(
                connection.fetch, MESSAGES_PAST, workspace_id, last, self._batch, self._retention
            )
            ended = [row["id"] for row in seen if row["ended"]]
            if ended:
                for statement in MESSAGE_PARTS:
                    await self._delete_while_full(connection, statement, workspace_id, ended, self._batch)
                await self._paced(connection.execute, MESSAGES_DELETE, workspace_id, ended, self._retention)
            if len(seen) < self._batch:
                return
            last = seen[-1]["id"]

    async def _delete_while_full(self, connection: Connection, statement: str, *args: object) -> None:
        """Repeat a statement until it deletes less than a whole batch."""
        while await self._paced(connection.execute, statement, *args) == f"DELETE {self._batch}":
            pass

    async def _paced(self, run: Callable[..., Awaitable[Any]], statement: str, *args: object) -> Any:
        """Run one batch under the lease. Then pause as long as it took, so that half of the time is left to others."""
        await self._lease.renew()
        start_s = time.monotonic()
        result = await run(statement, *args)
        await asyncio.sleep(time.monotonic() - start_s)
        return result
