"""Upkeep: what keeps the house in order without anybody asking. One worker at a time does it, whichever comes first.

Releases what was held by a race, ends what is older than its retention, makes and drops partitions, deletes expired
keys and secrets, and reads the figures of the queues. Every duty may also be done by two workers at once: the lock
only spares the work.
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
from workers.webhooks.system_events import dead_letter_event, write_system_events

DAYS_AHEAD: Final = 7
_ROUND_S: Final = 5.0
_REST: Final = 50
"""A duty rests this many times as long as it took: counting a queue of a million must not cost the queue its pace."""
_DROP_BATCH: Final = 5000
_LOCK: Final = "SELECT pg_try_advisory_lock(hashtext('spine.upkeep'))"

_log = structlog.get_logger(__name__)

MaintenanceTask = Callable[[Connection], Awaitable[None]]


class Maintenance:
    """The line of work that does the rounds."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._db = DedicatedConnection(context.pool)
        self._kept = timedelta(days=context.work.retention_days)
        self._locked: object | None = None
        self._dead_letters = 0
        self._next_s: dict[str, float] = {}
        self._tasks: tuple[tuple[str, float, MaintenanceTask], ...] = (
            ("partitions", 3600, self.partitions),
            ("release held", _ROUND_S, self.release_held),
            ("expire held", 15, self.expire_held),
            ("drop expired", 60, self.drop_expired),
            ("dead letters", 30, self.count_dead_letters),
            ("figures", _ROUND_S, self.stats),
        )

    def on_wakeup(self, kind: WakeupKind) -> None:
        """Bells are for others."""

    async def run(self) -> None:
        """Work until cancelled."""
        await run_forever("upkeep", self._round)

    async def drain(self, within_s: float) -> None:
        """Nothing is in flight here."""

    async def _round(self) -> None:
        async with self._db.connection() as connection:
            if await self._is_mine(connection):
                for name, every_s, task in self._tasks:
                    now_s = time.monotonic()
                    if now_s >= self._next_s.get(name, 0):
                        await self._do(name, task, connection)
                        took_s = time.monotonic() - now_s
                        self._next_s[name] = now_s + max(every_s, took_s * _REST)
            else:
                observe_queue(None)
        await asyncio.sleep(_ROUND_S)

    async def _is_mine(self, connection: Connection) -> bool:
        """The lock lives as long as the connection; a new connection must ask anew."""
        if self._locked is not connection:
            self._locked = connection if await connection.fetchval(_LOCK) else None
        return self._locked is connection

    async def _do(self, name: str, task: MaintenanceTask, connection: Connection) -> None:
        try:
            await task(connection)
        except asyncpg.PostgresConnectionError:
            raise
        except asyncpg.PostgresError as error:
            _log.warning("duty failed", task=name, error=repr(error))

    async def partitions(self, connection: Connection) -> None:
        """Make the days to come, drop those past retention."""
        await connection.execute("SELECT spine.partitions_ensure($1)", DAYS_AHEAD)
        dropped = await connection.fetch("SELECT spine.partitions_drop($1) AS name", datetime.now(UTC) - self._kept)
        if dropped:
            _log.info("partitions dropped", names=[row["name"] for row in dropped])
        await connection.execute(queries.LATE_CLOSED_DROP, self._kept)

    async def release_held(self, connection: Connection) -> None:
        """Let go what is held although its endpoint is enabled; whoever serves the endpoint finds it parked."""
        await connection.execute(queries.HELD_RELEASE)

    async def expire_held(self, connection: Connection) -> None:
        """End what was held for longer than anything is kept."""
        async with connection.transaction():
            rows = await connection.fetch(queries.HELD_EXPIRE, self._kept)
            system_events = [system_event for row in rows if (system_event := dead_letter_event(row, b"")) is not None]
            await write_system_events(connection, system_events)
        if system_events:
            self._context.wakeups.wake("relay")

    async def drop_expired(self, connection: Connection) -> None:
        """Delete expired idempotency keys and rotated secrets."""
        while await connection.execute(queries.IDEMPOTENCY_DROP, _DROP_BATCH) == f"DELETE {_DROP_BATCH}":
            pass
        await connection.execute(queries.SECRETS_DROP)

    async def count_dead_letters(self, connection: Connection) -> None:
        """Count what nobody has replayed."""
        self._dead_letters = await connection.fetchval(queries.DEAD_LETTERS)

    async def stats(self, connection: Connection) -> None:
        """Show how the queues stand."""
        async with connection.transaction():
            await connection.execute(
                "SET LOCAL enable_seqscan TO on"
            )  # counting a whole table is best done by reading it
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
