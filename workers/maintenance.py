"""Maintenance: periodic tasks. One worker at a time runs them: the one that holds an advisory lock.

The tasks create and drop partitions, delete expired keys and secrets, and read the stats of the queues. Two workers may
also run a task at the same time: the lock only saves work.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg
import structlog

from spine.kernel.metrics import FAILING_FOR, BacklogStats, QueueStats, observe_queue
from spine.kernel.wakeups import WakeupKind
from spine.webhooks import queries
from workers.connection import Connection, DedicatedConnection
from workers.pipeline import WorkerContext, run_forever

DAYS_AHEAD: Final = 7
_INTERVAL_S: Final = 5.0
_PAUSE_FACTOR: Final = 50
"""A task pauses this many times as long as it took: counting a queue of a million rows must not slow the queue."""
_DROP_BATCH: Final = 5000
_LOCK: Final = "SELECT pg_try_advisory_lock(hashtext('spine.maintenance'))"

_log = structlog.get_logger(__name__)

MaintenanceTask = Callable[[Connection], Awaitable[None]]


class Maintenance:
    """The pipeline that runs the tasks, each at its own interval in seconds."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._db = DedicatedConnection(context.pool)
        self._retention = timedelta(days=context.work.retention_days)
        self._lock_holder: object | None = None
        self._dead_letters = 0
        self._next_s: dict[str, float] = {}
        self._tasks: tuple[tuple[str, float, MaintenanceTask], ...] = (
            ("partitions", 3600, self.rotate_partitions),
            ("delete expired", 60, self.delete_expired),
            ("dead letters", 30, self.count_dead_letters),
            ("stats", _INTERVAL_S, self.observe_stats),
        )

    def on_wakeup(self, kind: WakeupKind) -> None:
        """Ignored: tasks run by time."""

    async def run(self) -> None:
        """Work until cancelled."""
        await run_forever("maintenance", self._step)

    async def drain(self, timeout_s: float) -> None:
        """Nothing to drain: nothing is in flight."""

    async def _step(self) -> None:
        async with self._db.connection() as connection:
            if await self._holds_lock(connection):
                for name, every_s, task in self._tasks:
                    now_s = time.monotonic()
                    if now_s >= self._next_s.get(name, 0):
                        await self._run_task(name, task, connection)
                        took_s = time.monotonic() - now_s
                        self._next_s[name] = now_s + max(every_s, took_s * _PAUSE_FACTOR)
            else:
                observe_queue(None)
        await asyncio.sleep(_INTERVAL_S)

    async def _holds_lock(self, connection: Connection) -> bool:
        """Whether this worker holds the lock. The lock ends with its connection; a new connection must take it again."""
        if self._lock_holder is not connection:
            self._lock_holder = connection if await connection.fetchval(_LOCK) else None
        return self._lock_holder is connection

    async def _run_task(self, name: str, task: MaintenanceTask, connection: Connection) -> None:
        try:
            await task(connection)
        except asyncpg.PostgresConnectionError:
            raise
        except asyncpg.PostgresError as error:
            _log.warning("task failed", task=name, error=repr(error))

    async def rotate_partitions(self, connection: Connection) -> None:
        """Create the partitions of the next days, and drop those past the retention."""
        await connection.execute("SELECT spine.partitions_ensure($1)", DAYS_AHEAD)
        dropped = await connection.fetch(
            "SELECT spine.partitions_drop($1) AS name", datetime.now(UTC) - self._retention
        )
        if dropped:
            _log.info("partitions dropped", names=[row["name"] for row in dropped])
        await connection.execute(queries.LATE_CLOSED_DROP, self._retention)

    async def delete_expired(self, connection: Connection) -> None:
        """Delete expired idempotency keys and rotated secrets."""
        while await connection.execute(queries.IDEMPOTENCY_DROP, _DROP_BATCH) == f"DELETE {_DROP_BATCH}":
            pass
        await connection.execute(queries.SECRETS_DROP)

    async def count_dead_letters(self, connection: Connection) -> None:
        """Count the dead letters that were not replayed."""
        self._dead_letters = await connection.fetchval(queries.DEAD_LETTERS)

    async def observe_stats(self, connection: Connection) -> None:
        """Read the stats of the queues for the metrics."""
        async with connection.transaction():
            # A sequential scan is the fastest way to count a whole table.
            await connection.execute("SET LOCAL enable_seqscan TO on")
            row = await connection.fetchrow(queries.QUEUE_STATS)
        failing = await connection.fetch(queries.FAILING_SINCE)
        observe_queue(_stats(row, [float(one["seconds"]) for one in failing], self._dead_letters))


def _stats(row: Any, failing_s: list[float], dead_letters: int) -> BacklogStats:
    deliveries = QueueStats(
        open={state: row[state] for state in ("pending", "retrying", "held")},
        due=row["due"],
        leased=row["leased"],
        oldest_due_age_s=float(row["due_age_s"] or 0),
    )
    messages = QueueStats(
        open={"waiting": row["sends"] - row["sends_leased"], "sending": row["sends_leased"]},
        due=row["sends_due"],
        leased=row["sends_leased"],
        oldest_due_age_s=float(row["sends_due_age_s"] or 0),
    )
    return BacklogStats(
        outbox_rows=row["outbox_rows"],
        outbox_oldest_age_s=float(row["outbox_age_s"] or 0),
        queues={"delivery": deliveries, "message": messages},
        parked=row["parked"],
        dead_letters=dead_letters,
        endpoints_failing={
            label: sum(age_s >= since_s for age_s in failing_s) for label, since_s in FAILING_FOR.items()
        },
        endpoints_disabled=row["disabled"],
    )
