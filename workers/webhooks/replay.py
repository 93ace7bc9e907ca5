"""Runs replays in steps. Each step is one transaction that looks at a window of rows and moves the replay's position.

A replay that the API could not count to its end is counted first. Then a step starts as many deliveries as the replay's rate
allows in half a second. Between steps a replay can be paused or cancelled by an update of its row. Replays of different
workspaces take turns, and one whose step fails waits by itself (`workers.webhooks.stepped_work`).
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from spine.kernel import ids
from spine.kernel.wakeups import WakeupKind
from spine.webhooks import replay_queries
from spine.webhooks.replay_walk import WINDOW, Counted, closed_arguments, count_closed, find_missing
from workers.connection import Connection, DedicatedConnection
from workers.pipeline import WorkerContext, run_forever, wait_for_wakeup
from workers.webhooks.stepped_work import AfterCommit, SteppedWork
from workers.webhooks.system_events import replay_completed_event, write_system_events

_BATCH: Final = 500
"""Maximum number of deliveries that one step starts."""
_STEP_S: Final = 0.5
_POLL_S: Final = 1.0
_TRUNCATED: Final = timedelta(milliseconds=1)  # created_at is the time in the id, in whole milliseconds


@dataclass(frozen=True, slots=True)
class _Step:
    """The result of a step."""

    position: str | None
    """Where the next step begins; None at the end of the walk."""
    started: int
    """Number of deliveries that the step has started."""


class ReplayRunner:
    """The pipeline that runs replays. A `deliver` wakeup makes it query."""

    def __init__(self, context: WorkerContext, window: int = WINDOW) -> None:
        self._context = context
        self._window = window
        self._work = SteppedWork(
            "replay", DedicatedConnection(context.pool), replay_queries.REPLAY_TAKE, replay_queries.REPLAY_PUT_OFF
        )
        self._wake = asyncio.Event()

    def on_wakeup(self, kind: WakeupKind) -> None:
        """Query soon if the wakeup is for deliveries."""
        if kind == "deliver":
            self._wake.set()

    async def run(self) -> None:
        """Run steps until cancelled."""
        self._wake.set()
        await run_forever("replays", self._run_steps)

    async def drain(self, timeout_s: float) -> None:  # noqa: ARG002  # a step is short
        """Start no further step."""
        self._work.stop()

    async def _run_steps(self) -> None:
        await wait_for_wakeup(self._wake, _POLL_S)
        await self._work.run_due(self._step)

    async def run_step(self) -> bool:
        """Run one step of one replay. Returns whether a replay was due."""
        return await self._work.run_step(self._step)

    async def _step(self, connection: Connection, replay: Any) -> AfterCommit:
        if replay["count_position"] is not None:
            counted = await _count(connection, replay, self._window)
            await connection.execute(
                replay_queries.REPLAY_COUNTED, replay["workspace_id"], replay["id"], counted.position, counted.matched
            )
            return lambda: None
        if replay["position"] == replay["upto"]:
            return await self._finish(connection, replay)
        start = _start_missing if replay["kind"] == "missing" else _start_closed
        step = await start(connection, replay, self._window)
        await _save(connection, replay, replay["upto"] if step.position is None else step.position, step.started)
        return lambda: self._context.wakeups.wake("deliver") if step.started else None

    async def _finish(self, connection: Connection, replay: Any) -> AfterCommit:
        """End a replay that has passed all rows, as soon as all started deliveries have ended."""
        if not await _is_over(connection, replay):
            await _save(connection, replay, replay["position"], 0)
            return lambda: None
        done = await connection.fetchrow(replay_queries.REPLAY_FINISH, replay["workspace_id"], replay["id"])
        await write_system_events(connection, [replay_completed_event(done)])
        return lambda: self._context.wakeups.wake("relay")


async def _save(connection: Connection, replay: Any, position: str, started: int) -> None:
    pause = timedelta(seconds=_pause_s(replay, started, waiting=replay["position"] == replay["upto"]))
    await connection.execute(replay_queries.REPLAY_STEP, replay["workspace_id"], replay["id"], position, started, pause)


def _batch_size(replay: Any) -> int:
    rate = replay["rate_per_s"]
    return _BATCH if rate is None else max(1, min(_BATCH, int(rate * _STEP_S)))


def _pause_s(replay: Any, started: int, *, waiting: bool) -> float:
    """Seconds until the next step. The rate limits the started deliveries, not the rows that are read."""
    if waiting:
        return _POLL_S
    rate = replay["rate_per_s"]
    return 0.0 if rate is None else started / rate


def _before(replay: Any) -> datetime:
    created_at: datetime = replay["created_at"]
    return created_at + _TRUNCATED


async def _count(connection: Connection, replay: Any, window: int) -> Counted:
    """Count the next window of a replay that has not started yet."""
    walk = connection.fetch, replay["workspace_id"], replay["filter"], replay["count_position"], _before(replay)
    if replay["kind"] == "missing":
        found = await find_missing(*walk, _BATCH, window)
        return Counted(len(found.events), found.position)
    return await count_closed(*walk, window)


async def _start_closed(connection: Connection, replay: Any, window: int) -> _Step:
    """Open the next closed deliveries again."""
    filter = replay["filter"]
    row = await connection.fetchrow(
        replay_queries.closed_reopen(filter.get("status", "dead"), filter.get("endpoint_id")),
        *closed_arguments(replay["workspace_id"], filter, replay["position"], _before(replay), window),
        (limit := _batch_size(replay)),
        replay["id"],
    )
    assert row is not None
    more = row["read"] == window or row["picked"] == limit
    return _Step(row["position"] if more else None, row["started"])


async def _start_missing(connection: Connection, replay: Any, window: int) -> _Step:
    """Make deliveries of the next events that the endpoint lacks."""
    found = await find_missing(
        connection.fetch,
        replay["workspace_id"],
        replay["filter"],
        replay["position"],
        _before(replay),
        _batch_size(replay),
        window,
    )
    await connection.execute(
        replay_queries.MISSING_PUT,
        replay["workspace_id"],
        replay["filter"]["endpoint_id"],
        replay["id"],
        [ids.mint("dlv") for _ in found.events],
        [event["id"] for event in found.events],
        [event["type"] for event in found.events],
        [event["accepted_at"] for event in found.events],
    )
    return _Step(found.position, len(found.events))


async def _is_over(connection: Connection, replay: Any) -> bool:
    """Whether all started deliveries have ended."""
    if replay["done"] + replay["failed"] >= replay["started"]:
        return True
    # Some may have ended without being counted: their endpoint was deleted, or they were replayed again on their own.
    return not await connection.fetchval(replay_queries.REPLAY_IS_OPEN, replay["workspace_id"], replay["id"])
