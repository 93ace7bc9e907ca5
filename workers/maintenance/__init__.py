"""Maintenance: periodic tasks. One worker at a time runs them: the one that holds the lease.

The tasks delete expired keys and secrets, end the sessions of frozen processes, and read the stats of the queues. A second
loop runs the tasks that may take long: partitions, the receipts of providers, the retention of rows that are not
partitioned. Two workers may also run a task at the same time: the lease only saves work.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final

import asyncpg
import structlog

from spine.kernel.metrics import observe_queue
from spine.kernel.wakeups import WakeupKind
from spine.webhooks import queries
from workers.connection import CONNECTION_ERRORS, Connection, DedicatedConnection
from workers.maintenance.history import Retention
from workers.maintenance.lease import Lease, LeaseLostError
from workers.maintenance.partitions import rotate_partitions
from workers.maintenance.receipts import ReceiptJudge
from workers.maintenance.stats import QueueObserver
from workers.pipeline import WorkerContext, run_forever

LEASE: Final = "maintenance"
_INTERVAL_S: Final = 5.0
_PAUSE_FACTOR: Final = 50
"""A task pauses this many times as long as it took: counting a queue of a million rows must not slow the queue."""
_DROP_BATCH: Final = 5000
_GIVE_BACK_S: Final = 2.0
_FROZEN_AFTER: Final = timedelta(seconds=60)
"""Longer than any statement of ours takes (`spine.kernel.database`)."""

_log = structlog.get_logger(__name__)

MaintenanceTask = Callable[[Connection], Awaitable[None]]


class TaskLoop:
    """Runs tasks (name, least interval in seconds, task) on its own connection, while this worker holds the lease."""

    def __init__(
        self,
        context: WorkerContext,
        lease: Lease,
        tasks: Sequence[tuple[str, float, MaintenanceTask]],
        *,
        pause_factor: float,
    ) -> None:
        self._db = DedicatedConnection(context.pool)
        self._lease = lease
        self._tasks = tasks
        self._pause_factor = pause_factor
        self._next_s: dict[str, float] = {}

    async def step(self) -> bool:
        """Run the tasks that are due. Returns whether this worker holds the lease."""
        if not await self._lease.take():
            return False
        async with self._db.connection() as connection:
            for name, every_s, task in self._tasks:
                now_s = time.monotonic()
                if now_s >= self._next_s.get(name, 0):
                    await self._run(name, task, connection)
                    took_s = time.monotonic() - now_s
                    self._next_s[name] = now_s + max(every_s, took_s * self._pause_factor)
        return True

    async def _run(self, name: str, task: MaintenanceTask, connection: Connection) -> None:
        try:
            await self._lease.renew()
            await task(connection)
        except asyncpg.PostgresConnectionError:
            raise
        except (asyncpg.PostgresError, LeaseLostError) as error:
            _log.warning("task failed", task=name, error=repr(error))


class Maintenance:
    """The pipeline that runs the tasks, each at its own interval in seconds."""

    def __init__(self, context: WorkerContext) -> None:
        self._retention = retention = timedelta(days=context.work.retention_days)
        self._lease = lease = Lease(context.pool, LEASE, context.worker_id, context.work.lease_s)
        self._stopping = False
        stats = QueueObserver()

        async def partitions(connection: Connection) -> None:
            await rotate_partitions(connection, lease, retention)

        self._queues = TaskLoop(
            context,
            lease,
            (
                ("delete expired", 60, self.delete_expired),
                ("end frozen sessions", 15, self.end_frozen_sessions),
                ("dead letters", 30, stats.count_dead_letters),
                ("stats", _INTERVAL_S, stats.observe),
            ),
            pause_factor=_PAUSE_FACTOR,
        )
        self._history = TaskLoop(
            context,
            lease,
            (
                ("partitions", 60, partitions),
                ("receipts of providers", 60, ReceiptJudge(lease).judge),
                ("retention", 3600, Retention(lease, retention).delete),
            ),
            pause_factor=1,  # these tasks pause after each batch
        )

    def on_wakeup(self, kind: WakeupKind) -> None:
        """Ignored: tasks run by time."""

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as loops:
            loops.create_task(run_forever("maintenance", self._step))
            loops.create_task(run_forever("maintenance of the history", self._step_history))

    async def drain(self, timeout_s: float) -> None:  # noqa: ARG002  # nothing is in flight
        """Run no further task, and give the lease back."""
        self._stopping = True
        with contextlib.suppress(OSError, TimeoutError, *CONNECTION_ERRORS):
            async with asyncio.timeout(_GIVE_BACK_S):
                await self._lease.give_back()

    async def _step(self) -> None:
        if not self._stopping and not await self._queues.step():
            observe_queue(None)
        await asyncio.sleep(_INTERVAL_S)

    async def _step_history(self) -> None:
        if not self._stopping:
            await self._history.step()
        await asyncio.sleep(_INTERVAL_S)

    async def delete_expired(self, connection: Connection) -> None:
        """Delete expired idempotency keys and rotated secrets."""
        while await connection.execute(queries.IDEMPOTENCY_DROP, _DROP_BATCH) == f"DELETE {_DROP_BATCH}":
            pass
        await connection.execute(queries.SECRETS_DROP)

    async def end_frozen_sessions(self, connection: Connection) -> None:
        """End the sessions of frozen processes that stopped while they read a result: other workers skip rows that they lock."""
        ended = await connection.fetchval("SELECT spine.frozen_sessions_end($1)", _FROZEN_AFTER)
        if ended:
            _log.warning("sessions of frozen processes ended", sessions=ended)
