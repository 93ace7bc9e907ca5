"""Runs replays in steps. Each step is one transaction that starts a batch of deliveries and moves the replay's position.

A step starts as many deliveries as the replay's rate allows in half a second. Between steps a replay can be paused or
cancelled by an update of its row.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import orjson

from spine.kernel import ids
from spine.kernel.wakeups import WakeupKind
from spine.webhooks import queries
from spine.webhooks.dead_letters import DEAD_LETTERED
from spine.webhooks.filters import STEPS_OF_A_BATCH, Json, Payload
from spine.webhooks.patterns import split_patterns
from workers.connection import Connection, DedicatedConnection
from workers.pipeline import WorkerContext, run_forever, wait_for_wakeup
from workers.webhooks.system_events import replay_completed_event, write_system_events

_BATCH: Final = 500
"""Maximum number of rows that one step reads."""
_BATCH_WITH_BODIES: Final = 100
"""The same for a step that reads payloads, because they may be large."""
_STEP_S: Final = 0.5
_POLL_S: Final = 1.0
_TRUNCATED: Final = timedelta(milliseconds=1)  # created_at is the time in the id, in whole milliseconds


@dataclass(frozen=True, slots=True)
class _Step:
    """The result of a step."""

    read: int
    """Number of rows that the step has passed."""
    position: str
    """Where the next step begins."""
    started: int
    """Number of deliveries that the step has started."""
    waiting: bool = False
    """Whether the step waits for the relay before it can pass the next row."""


class ReplayRunner:
    """The pipeline that runs replays. A `deliver` wakeup makes it query."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._db = DedicatedConnection(context.pool)
        self._wake = asyncio.Event()
        self._stopping = False

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
        self._stopping = True

    async def _run_steps(self) -> None:
        await wait_for_wakeup(self._wake, _POLL_S)
        while not self._stopping and await self.run_step():
            pass

    async def run_step(self) -> bool:
        """Run one step of one replay. Returns whether a replay was due."""
        events = []
        async with self._db.connection() as connection, connection.transaction():
            replay = await connection.fetchrow(queries.REPLAY_TAKE)
            if replay is None:
                return False
            step = await _start_batch(connection, replay)
            if step.read or step.waiting or not await _is_over(connection, replay):
                pause = timedelta(seconds=_pause_s(replay, step))
                await connection.execute(
                    queries.REPLAY_STEP, replay["workspace_id"], replay["id"], step.position, step.started, pause
                )
            else:
                done = await connection.fetchrow(queries.REPLAY_FINISH, replay["workspace_id"], replay["id"])
                events = [replay_completed_event(done)]
                await write_system_events(connection, events)
        if step.started:
            self._context.wakeups.wake("deliver")
        if events:
            self._context.wakeups.wake("relay")
        return True


def _batch_size(replay: Any) -> int:
    rate = replay["rate_per_s"]
    return _BATCH if rate is None else max(1, min(_BATCH, int(rate * _STEP_S)))


def _pause_s(replay: Any, step: _Step) -> float:
    """Seconds until the next step. The rate limits the started deliveries, not the rows that are read."""
    if not step.read:
        return _POLL_S
    rate = replay["rate_per_s"]
    return 0.0 if rate is None else step.started / rate


async def _start_batch(connection: Connection, replay: Any) -> _Step:
    """Start the deliveries of the next batch."""
    if replay["kind"] == "missing":
        return await _start_missing(connection, replay)
    filter = replay["filter"]
    exact, prefixes = split_patterns(filter.get("types")) or (None, None)
    row = await connection.fetchrow(
        queries.CLOSED_REOPEN,
        replay["workspace_id"],
        replay["position"],
        filter.get("status", "dead"),
        exact,
        prefixes,
        filter.get("endpoint_id"),
        _parse_time(filter.get("since")),
        _parse_time(filter.get("until")),
        replay["created_at"] + _TRUNCATED,
        _batch_size(replay),
        replay["id"],
    )
    assert row is not None
    return _Step(row["walked"], row["position"] or replay["position"], row["started"])


async def _start_missing(connection: Connection, replay: Any) -> _Step:
    filter = replay["filter"]
    exact, prefixes = split_patterns(filter.get("types")) or (None, None)
    endpoint_id, data = filter["endpoint_id"], filter.get("data")
    found = await connection.fetch(
        queries.MISSING_FIND,
        replay["workspace_id"],
        replay["position"],
        endpoint_id,
        exact,
        prefixes,
        _parse_time(filter["since"]),
        replay["created_at"] + _TRUNCATED,
        _BATCH_WITH_BODIES if data else _batch_size(replay),
        bool(data),
    )
    # The relay may still write a delivery for an event that is in the outbox: wait for it.
    ready = next((found[:n] for n, event in enumerate(found) if event["unrelayed"]), found)
    read, missing = _select_missing(ready, endpoint_id, data, _batch_size(replay))
    await connection.execute(
        queries.MISSING_PUT,
        replay["workspace_id"],
        endpoint_id,
        replay["id"],
        [ids.mint("dlv") for _ in missing],
        [event["id"] for event in missing],
        [event["type"] for event in missing],
        [event["accepted_at"] for event in missing],
    )
    position = ready[read - 1]["id"] if read else replay["position"]
    return _Step(read, position, len(missing), waiting=bool(found) and not read)


def _select_missing(events: list[Any], endpoint_id: str, data: Json | None, limit: int) -> tuple[int, list[Any]]:
    """Select the events that the endpoint should get. Returns how many events this step passes, and the selected ones."""
    selected: list[Any] = []
    filter_steps = 0
    for read, event in enumerate(events):
        if len(selected) == limit or filter_steps > STEPS_OF_A_BATCH:
            return read, selected
        if event["type"] == DEAD_LETTERED.name and _is_about(event["body"], endpoint_id):
            continue
        payload = Payload(event["body"])
        if not data or payload.meets(data):
            selected.append(event)
        filter_steps += payload.spent
    return len(events), selected


def _is_about(body: bytes, endpoint_id: str) -> bool:
    """Whether the event reports a dead letter of the endpoint itself. The endpoint never gets such an event."""
    return bool(orjson.loads(body)["data"]["endpoint_id"] == endpoint_id)


async def _is_over(connection: Connection, replay: Any) -> bool:
    """Whether all started deliveries have ended."""
    if replay["done"] + replay["failed"] >= replay["started"]:
        return True
    # Some may have ended without being counted: their endpoint was deleted, or they were replayed again on their own.
    return not await connection.fetchval(queries.REPLAY_IS_OPEN, replay["workspace_id"], replay["id"])


def _parse_time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
