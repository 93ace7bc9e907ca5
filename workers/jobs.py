"""Runs the jobs of products (`spine.kernel.jobs`): each in one transaction, in the job's workspace, as the actor `system`.

    wakeup "job", or a sweep ─► due jobs ─► for each: delete the row + the handler's work + its events ─► commit

The list of due jobs locks nothing. Whoever takes a job first deletes its row in the transaction of its work, so nobody else
runs it, and a worker that dies leaves it due. While more jobs are due than one list holds, the workspaces take turns.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Final

import structlog

from spine.kernel import ids, jobs, metrics
from spine.kernel.authentication import Caller, internal_caller
from spine.kernel.events import SYSTEM
from spine.kernel.idempotency import StoredResponse
from spine.kernel.jobs import JobHandler
from spine.kernel.platform import Platform
from spine.kernel.unit_of_work import UnitOfWork
from spine.kernel.wakeups import WakeupKind
from workers.pipeline import WorkerContext, run_forever, wait_for_wakeup

_BATCH: Final = 200
"""Due jobs that are listed at once. If there are as many, the workspaces take turns."""
_WORKSPACES: Final = 100
_EACH: Final = 4
"""Jobs of one workspace in a turn."""
_AT_ONCE: Final = 4
"""Jobs that one worker runs at the same time."""

_DUE: Final = "SELECT * FROM spine.jobs_due($1)"
_IN_TURN: Final = "SELECT * FROM spine.jobs_in_turn($1, $2, $3)"
_LATEST: Final = "SELECT extract(epoch FROM now() - min(due_at))::float8 FROM spine.jobs"

_log = structlog.get_logger(__name__)

_NOTHING: Final = StoredResponse(200, b"", None)


class JobRunner:
    """The pipeline that runs jobs. `handlers` are by kind; a job of an unknown kind waits for a version that knows it."""

    def __init__(
        self,
        context: WorkerContext,
        handlers: Mapping[str, JobHandler],
        open_platform: Callable[[WorkerContext], AbstractAsyncContextManager[Platform]],
    ) -> None:
        self._context = context
        self._handlers = handlers
        self._open_platform = open_platform
        self._platform: Platform | None = None
        self._resources = AsyncExitStack()
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._last_workspace_id = ""
        self._stopping = False
        for kind in handlers:
            metrics.jobs_run(kind, "failed")  # from 0, so that the first one is an increase

    def on_wakeup(self, kind: WakeupKind) -> None:
        """Query soon if the wakeup is for jobs, or for messages, which jobs may wait for."""
        if kind in ("job", "send"):
            self._wake.set()

    async def run(self) -> None:
        """Run due jobs until cancelled."""
        self._wake.set()
        async with self._resources:
            await run_forever("jobs", self._step)

    async def drain(self, timeout_s: float) -> None:  # noqa: ARG002  # a job is short
        """Start no further job."""
        self._stopping = True

    async def _step(self) -> None:
        await wait_for_wakeup(self._wake, self._context.work.sweep_s, self._context.wakeup_status)
        await self.run_due()

    async def run_due(self) -> int:
        """Run jobs until none is due. Returns how many were done."""
        if self._platform is None:
            self._platform = await self._resources.enter_async_context(self._open_platform(self._context))
        done = 0
        while not self._stopping and (found := await self._find()):
            async with asyncio.TaskGroup() as running:
                tasks = [running.create_task(self._run(self._platform, row)) for row in found]
            outcomes = [task.result() for task in tasks]
            done += sum(outcomes)
            if not any(outcomes):
                break  # all failed, or other workers run them
        metrics.jobs_late_s().set(max(0.0, await self._context.pool.fetchval(_LATEST) or 0.0))
        return done

    async def _find(self) -> list[Any]:
        found: list[Any] = await self._context.pool.fetch(_DUE, _BATCH)
        if len(found) == _BATCH:
            found = found[: _BATCH // 4] + await self._find_in_turn()
        known = {
            (row["workspace_id"], row["kind"], row["subject_id"]): row for row in found if row["kind"] in self._handlers
        }
        rows = list(known.values())
        random.shuffle(rows)  # workers that list the same jobs begin at different ones
        return rows

    async def _find_in_turn(self) -> list[Any]:
        found: list[Any] = await self._context.pool.fetch(_IN_TURN, self._last_workspace_id, _WORKSPACES, _EACH)
        self._last_workspace_id = found[0]["last_workspace_id"] if len(found) >= _WORKSPACES else ""
        return [row for row in found if row["kind"] is not None]

    async def _run(self, platform: Platform, row: Any) -> bool:
        """Run one job. Returns False if it failed, or if another worker has it."""
        async with self._slots:
            if self._stopping:
                return False
            kind, subject_id = row["kind"], row["subject_id"]
            caller = internal_caller(row["workspace_id"], row["organisation_id"], row["env"], SYSTEM)
            unit = UnitOfWork(platform, caller, ids.mint(ids.PREFIXES["request"]), f"job:{kind}", None)
            try:
                taken, _ = await unit.write(lambda: self._handle(unit, kind, subject_id), _result)
            except Exception as error:  # if the database is away, putting it off raises, and the whole loop waits
                await self._put_off(platform, caller, row, error)
                return False
            if taken is _NOTHING:
                return False
            metrics.jobs_run(kind, "done").inc()
            return True

    async def _handle(self, unit: UnitOfWork, kind: str, subject_id: str) -> bool:
        job = await jobs.take(unit, kind, subject_id)
        if job is None:
            return False
        await self._handlers[kind](unit, job)
        return True

    async def _put_off(self, platform: Platform, caller: Caller, row: Any, error: Exception) -> None:
        metrics.jobs_run(row["kind"], "failed").inc()
        _log.warning("job failed", kind=row["kind"], subject=row["subject_id"], error=repr(error))
        unit = UnitOfWork(platform, caller, ids.mint(ids.PREFIXES["request"]), "job", None)
        await unit.write(lambda: jobs.put_off(unit, row["kind"], row["subject_id"], type(error).__name__), _result)


def _result(done: bool | None) -> StoredResponse:
    return StoredResponse(200, b"done", None) if done else _NOTHING
