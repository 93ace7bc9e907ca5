"""Long work that rows of a table ask for, done in steps: replays, and endpoints whose deliveries follow a change.

A step is one transaction. Workspaces take turns, so the long work of one does not delay the others. A step that fails is
rolled back, and its row waits in a transaction of its own, longer with each failure.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from spine.kernel import metrics
from workers.connection import Connection, DedicatedConnection
from workers.database_errors import is_outage

_log = structlog.get_logger(__name__)

AfterCommit = Callable[[], None]
Step = Callable[[Connection, Any], Awaitable[AfterCommit]]


class SteppedWork:
    """Runs a step of the next row.

    `take` locks the row that is due in a workspace after `$1`; it returns at least `workspace_id` and `id`. `put_off` moves
    the due time of the row `($1, $2)` and keeps the error `$3`.
    """

    def __init__(self, name: str, db: DedicatedConnection, take: str, put_off: str) -> None:
        self._name = name
        self._db = db
        self._take = take
        self._put_off = put_off
        self._last_workspace_id = ""
        self._stopping = False
        metrics.steps_put_off(name)  # from 0, so that the first one is an increase

    async def run_due(self, step: Step) -> None:
        """Run steps until no row is due. A pause as long as the step leaves half of the time to claims and results."""
        started_s = time.monotonic()
        while not self._stopping and await self.run_step(step):
            await asyncio.sleep(time.monotonic() - started_s)
            started_s = time.monotonic()

    def stop(self) -> None:
        """Start no further step."""
        self._stopping = True

    async def run_step(self, step: Step) -> bool:
        """Run one step, and after its commit what it returned. Returns False if no row is due."""
        row = None
        try:
            async with self._db.connection() as connection, connection.transaction():
                row = await self._take_next(connection)
                if row is None:
                    return False
                after_commit = await step(connection, row)
        except Exception as error:
            if row is None or is_outage(error):
                raise
            metrics.steps_put_off(self._name).inc()
            _log.warning("step put off", work=self._name, id=row["id"], error=repr(error))
            async with self._db.connection() as connection:
                await connection.execute(self._put_off, row["workspace_id"], row["id"], type(error).__name__)
            return True
        after_commit()
        return True

    async def _take_next(self, connection: Connection) -> Any:
        """Take the row of the workspace after the last one, or of the first workspace."""
        row = await connection.fetchrow(self._take, self._last_workspace_id)
        if row is None and self._last_workspace_id:
            row = await connection.fetchrow(self._take, "")
        self._last_workspace_id = row["workspace_id"] if row is not None else ""
        return row
