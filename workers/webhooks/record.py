"""The recorder: group-commits results, as many as came since the last commit began, and loses none.

The first result after a quiet moment is committed at once; under load commits begin `commit_gap_s` apart, so each costs
Postgres and this process once for many results. A worker that is killed leaves that much more to be sent again.

Results stay here until Postgres has them, however long that takes; meanwhile they count as held, so a worker whose
database is away soon stops sending.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import asyncpg
import structlog

from policies.verdict import Delivered
from spine.kernel import metrics
from spine.kernel.wakeups import Wakeups
from workers.connection import DedicatedConnection
from workers.webhooks.endpoint_cache import EndpointKey
from workers.webhooks.jobs import AttemptResult, DeliveryJob, DeliveryResult
from workers.webhooks.result_batch import ResultBatch, sort_results
from workers.webhooks.write_results import Committed, commit

COMMITTERS: Final = 2
"""Commits in flight: one gathers while the other waits for the disk."""
_BATCH_MAX: Final = 1000
_PAUSE_MAX_S: Final = 1.0

_log = structlog.get_logger(__name__)


class Recorder:
    """Takes results with `put`. `on_committed` is told of each delivery once its result is, `gone` of endpoints that said 410."""

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        wakeups: Wakeups,
        commit_gap_s: float,
        on_committed: Callable[[DeliveryJob], None],
        gone: Callable[[EndpointKey], None],
    ) -> None:
        self._pool = pool
        self._bell = wakeups
        self._gap_s = commit_gap_s
        self._next_s = 0.0
        self._on_committed = on_committed
        self._on_gone = gone
        self._results: deque[DeliveryResult] = deque()
        self._came = asyncio.Event()
        self._gathering = asyncio.Lock()
        self._in_hand = 0

    def put(self, result: DeliveryResult) -> None:
        """Take a result; returns at once."""
        self._results.append(result)
        self._came.set()

    @property
    def uncommitted(self) -> int:
        """Results that are not committed yet."""
        return len(self._results) + self._in_hand

    async def run(self) -> None:
        """Commit for ever."""
        async with asyncio.TaskGroup() as committers:
            for _ in range(COMMITTERS):
                committers.create_task(self._commit_on())

    async def drain(self, within_s: float) -> None:
        """Wait until everything is committed, for so long at most."""
        until_s = time.monotonic() + within_s
        while self.uncommitted and time.monotonic() < until_s:  # noqa: ASYNC110  # at the end of a process, simple is enough
            await asyncio.sleep(0.005)

    async def _commit_on(self) -> None:
        db = DedicatedConnection(self._pool)
        while True:
            results = await self._gather()
            batch = sort_results(results)
            start = time.perf_counter()
            committed = await self._until_committed(db, batch)
            metrics.recorded(len(results), time.perf_counter() - start)
            self._in_hand -= len(results)
            self._publish(results, batch, committed)

    async def _gather(self) -> list[DeliveryResult]:
        """What came, once the gap since the last commit began is over."""
        async with self._gathering:
            await self._came.wait()
            await asyncio.sleep(max(0.0, self._next_s - time.monotonic()))
            results = [self._results.popleft() for _ in range(min(len(self._results), _BATCH_MAX))]
            if not self._results:
                self._came.clear()
            self._next_s = time.monotonic() + self._gap_s
            self._in_hand += len(results)
            return results

    async def _until_committed(self, db: DedicatedConnection, batch: ResultBatch) -> Committed:
        pause_s = 0.02
        while True:
            try:
                async with db.connection() as connection:
                    return await commit(connection, batch)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                _log.warning("results not committed yet", error=repr(error), uncommitted=self.uncommitted)
            except Exception:
                _log.exception("results not committed yet", uncommitted=self.uncommitted)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _PAUSE_MAX_S)

    def _publish(self, results: list[DeliveryResult], batch: ResultBatch, committed: Committed) -> None:
        for result in results:
            self._on_committed(result.job)
            if isinstance(result, AttemptResult):
                _count(result)
        for job, _, _ in batch.dead:
            metrics.dead(job.type).inc()
        for job, _, _ in batch.failed:
            metrics.retries(str(job.failures + 1)).inc()
        for key in batch.gone:
            self._on_gone(key)
        if batch.failed:
            self._bell.wake_at("deliver", batch.due_times_s)
        if committed.events:
            self._bell.wake("relay")
        if committed.system_mails:
            self._bell.wake("send")
            metrics.messages_accepted("webhooks").inc(committed.system_mails)


def _count(result: AttemptResult) -> None:
    if isinstance(result.verdict, Delivered):
        metrics.delivered(result.job.type).inc()
        metrics.attempt_seconds("delivered").observe(result.response.duration_s)
    else:
        metrics.failed(result.job.type).inc()
        metrics.attempt_errors(result.verdict.code).inc()
        metrics.attempt_seconds("failed").observe(result.response.duration_s)
