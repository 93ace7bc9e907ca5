"""Lets the open deliveries of an endpoint follow its row, in bounded steps, after it was disabled, enabled or deleted.

The endpoint's row changes at once. `spine.endpoint_transitions` has a row for each endpoint whose deliveries still follow, with
the place of the walk; any worker takes the next step. The walk compares each delivery with the endpoint's row as it is then, so
an endpoint that is changed again meanwhile ends in its last state. Every few seconds a sweep finds held deliveries that no walk
reaches: those of a relay that read the endpoint just before it changed, and those past the retention period.
"""

import asyncio
from datetime import timedelta
from typing import Any, Final

from spine.kernel.metrics import observe_transitions
from spine.kernel.wakeups import WakeupKind
from spine.webhooks import held_queries, result_queries
from workers.connection import Connection, DedicatedConnection
from workers.pipeline import WorkerContext, run_forever, wait_for_wakeup
from workers.webhooks.stepped_work import AfterCommit, SteppedWork
from workers.webhooks.system_events import dead_letter_event, write_system_events

STEP_ROWS: Final = 1000
"""Deliveries that one step reads."""
_PAGE: Final = 256
"""Endpoints with held deliveries that one statement of the sweep finds."""
_SWEEP_S: Final = 5.0


class EndpointTransitions:
    """The pipeline of the walks and of the sweep. A `deliver` wakeup makes it query."""

    def __init__(self, context: WorkerContext, step_rows: int = STEP_ROWS) -> None:
        self._context = context
        self._step_rows = step_rows
        self._retention = timedelta(days=context.work.retention_days)
        self._db = DedicatedConnection(context.pool)
        self._work = SteppedWork(
            "endpoint transition", self._db, held_queries.TRANSITION_TAKE, held_queries.TRANSITION_PUT_OFF
        )
        self._wake = asyncio.Event()
        self._stopping = False

    def on_wakeup(self, kind: WakeupKind) -> None:
        """Query soon if the wakeup is for deliveries."""
        if kind == "deliver":
            self._wake.set()

    async def run(self) -> None:
        """Run steps and sweeps until cancelled."""
        self._wake.set()
        async with asyncio.TaskGroup() as loops:
            loops.create_task(run_forever("endpoint transitions", self._run_steps))
            loops.create_task(run_forever("held deliveries", self._sweep_after_pause))

    async def drain(self, timeout_s: float) -> None:  # noqa: ARG002  # a step is short
        """Start no further step."""
        self._stopping = True
        self._work.stop()

    async def _run_steps(self) -> None:
        await wait_for_wakeup(self._wake, self._context.work.sweep_s, self._context.wakeup_status)
        await self._work.run_due(self._move)

    async def run_step(self) -> bool:
        """Move the next deliveries of one endpoint. Returns False if none must follow."""
        return await self._work.run_step(self._move)

    async def _move(self, connection: Connection, row: Any) -> AfterCommit:
        await connection.fetchrow(held_queries.TRANSITION_STEP, row["workspace_id"], row["id"], self._step_rows)
        return _nothing

    async def _sweep_after_pause(self) -> None:
        await self.sweep()
        await asyncio.sleep(_SWEEP_S)

    async def sweep(self) -> None:
        """Look at the held deliveries of all endpoints, a page of endpoints at a time. Delete old results that were set apart."""
        async with self._db.connection() as connection:
            observe_transitions(await connection.fetchval(held_queries.TRANSITIONS_COUNT))
            await connection.execute(result_queries.SET_APART_DROP, self._retention, self._step_rows)
        last_id: str | None = ""
        while last_id is not None and not self._stopping:
            async with self._db.connection() as connection:
                last_id = await self._sweep_page(connection, last_id)

    async def _sweep_page(self, connection: Connection, after_id: str) -> str | None:
        """Look at the next page. Returns its last endpoint, or None if no page follows."""
        page = await connection.fetch(held_queries.HELD_FIND, after_id, _PAGE, self._retention)
        await self._release(connection, [row for row in page if row["stray"]])
        for row in page:
            if row["expired"] and not row["stray"]:
                await self._expire(connection, row["id"])
        return page[-1]["id"] if len(page) == _PAGE else None

    async def _release(self, connection: Connection, endpoints: list[Any]) -> None:
        if endpoints:
            await connection.execute(
                held_queries.TRANSITIONS_ADD,
                [row["workspace_id"] for row in endpoints],
                [row["id"] for row in endpoints],
            )
            self._wake.set()

    async def _expire(self, connection: Connection, endpoint_id: str) -> None:
        """Move the next deliveries that were held for longer than the retention period to the dead letters."""
        async with connection.transaction():
            rows = await connection.fetch(held_queries.HELD_EXPIRE, endpoint_id, self._retention, self._step_rows)
            events = [event for row in rows if (event := dead_letter_event(row, b"")) is not None]
            await write_system_events(connection, events)
        if events:
            self._context.wakeups.wake("relay")


def _nothing() -> None:
    """Released deliveries are parked; the claim of parked rows finds them without a wakeup."""
