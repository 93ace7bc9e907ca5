"""Replays, walked step by step: each step is one transaction that puts a batch back and moves the replay's position.

A step takes as many deliveries as the replay's rate allows in half a second; between steps it can be paused or
cancelled by whoever changes its row.
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
from workers.connection import Connection, DedicatedConnection
from workers.pipeline import WorkerContext, run_forever, wait_for_wakeup
from workers.webhooks.system_events import replay_completed_event, write_system_events

_BATCH: Final = 500
_BODIES: Final = 100
"""Events of one step whose payloads are read: they may be large."""
_STEP_S: Final = 0.5
_LOOK_AGAIN_S: Final = 1.0
_TRUNCATED: Final = timedelta(milliseconds=1)  # created_at is the time in the id, without its microseconds


@dataclass(frozen=True, slots=True)
class _Step:
    """How far a step came: the rows it passed, where it stands, what it put back."""

    walked: int
    position: str
    started: int
    waiting: bool = False
    """Whether the next row is not the replay's yet."""


class ReplayRunner:
    """The line of work that walks replays; a `deliver` bell wakes it."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._db = DedicatedConnection(context.pool)
        self._wake = asyncio.Event()
        self._stopping = False

    def on_wakeup(self, kind: WakeupKind) -> None:
        """A bell rang."""
        if kind == "deliver":
            self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        self._wake.set()
        await run_forever("replays", self._step)

    async def drain(self, within_s: float) -> None:  # noqa: ARG002  # a step is short
        """Begin no further step."""
        self._stopping = True

    async def _step(self) -> None:
        await wait_for_wakeup(self._wake, _LOOK_AGAIN_S)
        while not self._stopping and await self.run_step():
            pass

    async def run_step(self) -> bool:
        """Do one step of one replay; answers whether there was one due."""
        events = []
        async with self._db.connection() as connection, connection.transaction():
            replay = await connection.fetchrow(queries.REPLAY_TAKE)
            if replay is None:
                return False
            step = await _walk(connection, replay)
            if step.walked or step.waiting or not await _is_over(connection, replay):
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


def _batch(replay: Any) -> int:
    rate = replay["rate_per_s"]
    return _BATCH if rate is None else max(1, min(_BATCH, int(rate * _STEP_S)))


def _pause_s(replay: Any, step: _Step) -> float:
    """Until the next step: the rate counts what is put back, not what is passed on the way to it."""
    if not step.walked:
        return _LOOK_AGAIN_S
    rate = replay["rate_per_s"]
    return 0.0 if rate is None else step.started / rate


async def _walk(connection: Connection, replay: Any) -> _Step:
    """Put the next batch back."""
    if replay["kind"] == "missing":
        return await _walk_missing(connection, replay)
    wish = replay["filter"]
    exact, families = _types(wish)
    row = await connection.fetchrow(
        queries.CLOSED_REOPEN,
        replay["workspace_id"],
        replay["position"],
        wish.get("status", "dead"),
        exact,
        families,
        wish.get("endpoint_id"),
        _instant(wish.get("since")),
        _instant(wish.get("until")),
        replay["created_at"] + _TRUNCATED,
        _batch(replay),
        replay["id"],
    )
    assert row is not None
    return _Step(row["walked"], row["position"] or replay["position"], row["started"])


async def _walk_missing(connection: Connection, replay: Any) -> _Step:
    wish = replay["filter"]
    exact, families = _types(wish)
    endpoint_id, data = wish["endpoint_id"], wish.get("data")
    found = await connection.fetch(
        queries.MISSING_FIND,
        replay["workspace_id"],
        replay["position"],
        endpoint_id,
        exact,
        families,
        _instant(wish["since"]),
        replay["created_at"] + _TRUNCATED,
        _BODIES if data else _batch(replay),
        bool(data),
    )
    # What the relay has not looked at yet may still get a delivery from it: wait for that.
    ready = next((found[:n] for n, event in enumerate(found) if event["unrelayed"]), found)
    walked, wanted = _wanted(ready, endpoint_id, data, _batch(replay))
    await connection.execute(
        queries.MISSING_PUT,
        replay["workspace_id"],
        endpoint_id,
        replay["id"],
        [ids.mint("dlv") for _ in wanted],
        [event["id"] for event in wanted],
        [event["type"] for event in wanted],
        [event["accepted_at"] for event in wanted],
    )
    position = ready[walked - 1]["id"] if walked else replay["position"]
    return _Step(walked, position, len(wanted), waiting=bool(found) and not walked)


def _wanted(events: list[Any], endpoint_id: str, data: Json | None, room: int) -> tuple[int, list[Any]]:
    """How many of the events can be passed in this step, and those of them that the endpoint should have."""
    wanted: list[Any] = []
    judged = 0
    for walked, event in enumerate(events):
        if len(wanted) == room or judged > STEPS_OF_A_BATCH:
            return walked, wanted
        if event["type"] == DEAD_LETTERED.name and _is_about(event["body"], endpoint_id):
            continue
        payload = Payload(event["body"])
        if not data or payload.meets(data):
            wanted.append(event)
        judged += payload.spent
    return len(events), wanted


def _is_about(notice: bytes, endpoint_id: str) -> bool:
    """Whether this is the notice of a dead letter of the endpoint itself, which it never gets."""
    return bool(orjson.loads(notice)["data"]["endpoint_id"] == endpoint_id)


async def _is_over(connection: Connection, replay: Any) -> bool:
    """Whether everything that was put back has ended."""
    if replay["done"] + replay["failed"] >= replay["started"]:
        return True
    # Some ended without being counted: their endpoint was deleted, or they were put back once more by hand.
    return not await connection.fetchval(queries.REPLAY_IS_OPEN, replay["workspace_id"], replay["id"])


def _types(wish: dict[str, Any]) -> tuple[list[str] | None, list[str] | None]:
    """Exact types and families of a filter; None where it names every type."""
    types = wish.get("types")
    if not types or "*" in types:
        return None, None
    return [name for name in types if not name.endswith(".*")], [
        name.removesuffix("*") for name in types if name.endswith(".*")
    ]


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
