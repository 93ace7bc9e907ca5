"""The recorder: commits results in groups and keeps each result until Postgres has it.

The first result after a pause is committed at once. Under load, commits begin `commit_gap_s` apart, so one commit costs
Postgres and this process once for many results. If a worker is killed, the results of that gap are sent again.

Uncommitted results count as held, so a worker whose database is away soon stops sending.

A batch that Postgres refuses is halved until the result that cannot be written stands alone; the others are committed. A result
that stands alone has a loop and a connection of its own, so the others never wait for it (`workers.webhooks.set_apart`).
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
from spine.kernel.database_clock import DatabaseClock
from spine.kernel.wakeups import Wakeups
from workers.connection import DedicatedConnection
from workers.database_errors import is_conflict, is_refusal, is_timeout
from workers.webhooks.endpoint_cache import EndpointKey
from workers.webhooks.jobs import DeliveryJob, DeliveryResult, Discarded
from workers.webhooks.result_batch import ResultBatch, sort_results
from workers.webhooks.set_apart import OUTCOMES, set_apart
from workers.webhooks.write_results import Committed, commit

COMMITTERS: Final = 2
"""Concurrent commits: one collects results while the other waits for the disk."""
_BATCH_MAX: Final = 1000
_PAUSE_MAX_S: Final = 1.0
_CONFLICTS_MAX: Final = 3
"""Conflicts with other transactions after which a batch is halved, so that one locked row holds up itself alone."""
_TIMEOUTS_MAX: Final = 3
"""Timeouts after which a single result counts as refused."""

_delivered_seconds: Final = metrics.attempt_seconds("delivered")
_log = structlog.get_logger(__name__)


class Recorder:
    """Takes results with `put`. Calls `on_committed` with each committed delivery, and `on_gone` with endpoints that sent 410."""

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        wakeups: Wakeups,
        clock: DatabaseClock,
        commit_gap_s: float,
        on_committed: Callable[[DeliveryJob], None],
        on_gone: Callable[[EndpointKey], None],
    ) -> None:
        self._pool = pool
        self._wakeups = wakeups
        self._clock = clock
        self._gap_s = commit_gap_s
        self._next_commit_s = 0.0
        self._on_committed = on_committed
        self._on_gone = on_gone
        self._results: deque[DeliveryResult] = deque()
        self._has_results = asyncio.Event()
        self._alone: asyncio.Queue[DeliveryResult] = asyncio.Queue()
        self._collecting = asyncio.Lock()
        self._committing = 0
        for outcome in OUTCOMES:
            metrics.results_set_apart(outcome)  # from 0, so that the first one is an increase

    def put(self, result: DeliveryResult) -> None:
        """Add a result. Returns at once."""
        self._results.append(result)
        self._has_results.set()

    @property
    def uncommitted(self) -> int:
        """Number of results that are not committed yet."""
        return len(self._results) + self._committing

    async def run(self) -> None:
        """Commit until cancelled."""
        async with asyncio.TaskGroup() as committers:
            for _ in range(COMMITTERS):
                committers.create_task(self._run_committer())
            committers.create_task(self._run_alone())

    async def drain(self, timeout_s: float) -> None:
        """Wait until everything is committed, or until the timeout."""
        until_s = time.monotonic() + timeout_s
        while self.uncommitted and time.monotonic() < until_s:  # noqa: ASYNC110  # the process ends: polling is enough
            await asyncio.sleep(0.005)

    async def _run_committer(self) -> None:
        db = DedicatedConnection(self._pool)
        while True:
            parts = [await self._collect()]
            while parts:
                part = parts.pop()
                if await self._commit_part(db, part):
                    continue
                if len(part) == 1:
                    self._alone.put_nowait(part[0])
                else:
                    middle = len(part) // 2
                    parts += [part[middle:], part[:middle]]

    async def _run_alone(self) -> None:
        """Commit results that stood alone, one after the other; the one that fails goes to the end."""
        db = DedicatedConnection(self._pool)
        timeouts: dict[DeliveryJob, int] = {}
        while True:
            result = await self._alone.get()
            try:
                await self._commit_alone(db, result, timeouts)
            except Exception as error:
                _log.warning("a single result is not committed yet", delivery_id=result.job.id, error=repr(error))
                self._alone.put_nowait(result)
                await asyncio.sleep(_PAUSE_MAX_S)
            else:
                timeouts.pop(result.job, None)

    async def _collect(self) -> list[DeliveryResult]:
        """Wait for results, and until `commit_gap_s` after the last commit began. Return what has arrived."""
        async with self._collecting:
            await self._has_results.wait()
            await asyncio.sleep(max(0.0, self._next_commit_s - time.monotonic()))
            results = [self._results.popleft() for _ in range(min(len(self._results), _BATCH_MAX))]
            if not self._results:
                self._has_results.clear()
            self._next_commit_s = time.monotonic() + self._gap_s
            self._committing += len(results)
            return results

    async def _commit_part(self, db: DedicatedConnection, part: list[DeliveryResult]) -> bool:
        """Commit results in one transaction, again while the database is away. Returns False if they must be halved."""
        pause_s, conflicts = 0.02, 0
        while True:
            try:
                await self._commit(db, part)
            except Exception as error:
                _log.warning(
                    "results not committed yet", error=repr(error), uncommitted=self.uncommitted, rows=len(part)
                )
                conflicts += is_conflict(error)
                if is_refusal(error) or is_timeout(error) or conflicts == _CONFLICTS_MAX:
                    return False
            else:
                return True
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _PAUSE_MAX_S)

    async def _commit(self, db: DedicatedConnection, part: list[DeliveryResult]) -> None:
        start = time.perf_counter()
        batch = sort_results(part)
        async with db.connection() as connection:
            committed = await commit(connection, batch)
        metrics.recorded(len(part), time.perf_counter() - start)
        self._after_commit(part, batch, committed)

    async def _commit_alone(
        self, db: DedicatedConnection, result: DeliveryResult, timeouts: dict[DeliveryJob, int]
    ) -> None:
        """Commit a single result, or set it apart if it is refused. Raises if the database is away or a row is locked."""
        try:
            await self._commit(db, [result])
        except Exception as error:
            timeouts[result.job] = timeouts.get(result.job, 0) + is_timeout(error)
            if not is_refusal(error) and timeouts[result.job] < _TIMEOUTS_MAX:
                raise
            async with db.connection() as connection:
                substitute = await set_apart(connection, result, error)
            if substitute is None:
                self._committing -= 1
                self._on_committed(result.job)
            else:
                self._after_commit([result], *substitute)

    def _after_commit(self, results: list[DeliveryResult], batch: ResultBatch, committed: Committed) -> None:
        self._committing -= len(results)
        for result in results:
            self._on_committed(result.job)
        _observe_attempts(results)
        for job, _, _ in batch.dead:
            metrics.dead(job.type).inc()
        for job, _, _ in batch.failed:
            metrics.retries(str(job.failures + 1)).inc()
        for key in batch.gone:
            self._on_gone(key)
        if batch.failed:
            self._wakeups.wake_at("deliver", batch.due_times_s(self._clock))
        if committed.disabled:
            self._wakeups.wake("deliver")
        if committed.events:
            self._wakeups.wake("relay")
        if committed.system_mails:
            self._wakeups.wake("send")
            metrics.messages_accepted("webhooks").inc(committed.system_mails)


def _observe_attempts(results: list[DeliveryResult]) -> None:
    delivered: dict[str, int] = {}
    for result in results:
        if isinstance(result, Discarded):
            continue
        duration_s, verdict, event_type = result.response.duration_s, result.verdict, result.job.type
        if isinstance(verdict, Delivered):
            delivered[event_type] = delivered.get(event_type, 0) + 1
            _delivered_seconds.observe(duration_s)
        else:
            metrics.failed(event_type).inc()
            metrics.attempt_errors(verdict.code).inc()
            metrics.attempt_seconds("failed").observe(duration_s)
    for event_type, count in delivered.items():
        metrics.delivered(event_type).inc(count)
