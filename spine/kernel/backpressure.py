"""Backpressure: accepting stops with 429 while too many events wait in the outbox.

A workspace is stopped by its own events first (SPINE_MAX_OUTBOX), and the others go on. Only if all of them together
have too many (SPINE_MAX_OUTBOX_TOTAL), everybody is stopped.
"""

import asyncio
from typing import Final

import asyncpg
import structlog

from spine.kernel.errors import TooManyRequests
from spine.kernel.settings import HttpSettings

_READ_EVERY_S: Final = 1.0
_TIMEOUT_S: Final = 5.0

_DEPTHS: Final = """
    WITH depths AS MATERIALIZED (SELECT * FROM spine.outbox_depths())
    SELECT workspace_id, depth FROM depths WHERE depth > $1
     UNION ALL
    SELECT NULL, coalesce(sum(depth), 0)::bigint FROM depths
"""
"""The workspaces with more than `$1` events, and with a null id all events."""

_log = structlog.get_logger(__name__)


class Backpressure:
    """Holds how many events wait, of the workspaces above their limit and of all; read every second."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", http: HttpSettings) -> None:
        self._pool = pool
        self._max_outbox = http.max_outbox
        self._max_total = http.max_outbox_total
        self._above: dict[str, int] = {}
        self._total = 0

    def refuse_when_full(self, workspace_id: str) -> None:
        """Raises TooManyRequests `backlog_full` while too many events of this workspace, or of all, wait for the relay."""
        if (depth := self._above.get(workspace_id)) is not None:
            detail = (
                f"{depth} events of this workspace wait for their endpoints already; it may have {self._max_outbox}"
            )
        elif self._total > self._max_total:
            detail = "too many events of all workspaces wait for their endpoints already"
        else:
            return
        raise TooManyRequests(detail, retry_after_s=2, code="backlog_full")

    async def watch(self) -> None:
        """Read the outbox's depth every second, until cancelled."""
        while True:
            try:
                await self.read()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                _log.warning("outbox depth not read", error=repr(error))
            await asyncio.sleep(_READ_EVERY_S)

    async def read(self) -> None:
        """Read how many events wait."""
        rows = await self._pool.fetch(_DEPTHS, self._max_outbox, timeout=_TIMEOUT_S)
        depths = {row["workspace_id"]: row["depth"] for row in rows}
        self._total = depths.pop(None)
        self._above = depths
