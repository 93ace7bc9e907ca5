"""Wakeups: arq jobs without data that cause a worker to query Postgres. If Redis loses them, the sweep finds the work.

Two rules prevent that a wakeup is lost while another one of its kind is pending or running. A new wakeup is dropped
only while an earlier one is not acknowledged, and a worker acknowledges a wakeup *before* it queries.

A wakeup for now is also pushed to the list of its kind, on which idle workers block. One worker pops it, which
acknowledges it, queries at once, and then removes the job from the queue (`receive_wakeup`, `remove_job`). arq itself
runs jobs that are due later, and jobs of a worker that died after it popped them. The times of jobs are those of
Postgres' clock (`spine.kernel.database_clock`), however the clocks of this machine and of Redis differ from it.
"""

import asyncio
import math
import time
from collections.abc import Iterable
from typing import Final, Literal, cast, get_args

import orjson
import structlog
from arq.constants import job_key_prefix
from arq.jobs import serialize_job
from redis.asyncio import Redis
from redis.exceptions import RedisError
from ulid import ULID

from spine.kernel.database_clock import DatabaseClock
from spine.kernel.metrics import wakeups_sent

WakeupKind = Literal["relay", "deliver", "send", "job"]

WAKEUP_QUEUE: Final = "spine:wakeups"
WAKEUP_LISTS: Final[dict[WakeupKind, str]] = {kind: f"spine:wakeup:{kind}" for kind in get_args(WakeupKind)}
"""Lists of job ids by kind. Idle workers block on them, so they receive a wakeup at once and need not poll often."""
RESOLUTION_MS: Final = 50
"""Wakeups for later are sent in steps of this many milliseconds. It bounds their delay and their number per second."""
_PENDING_TTL_MS: Final = 2_000
_JOB_TTL_MS: Final = 4 * 3600 * 1000

# One round trip. It pushes the job id to the list of its kind unless an id is there that no worker has popped. It adds
# the job to the queue unless a wakeup of this kind is pending. A push wakes one worker.
_SEND_SCRIPT: Final = """
if redis.call('EXISTS', KEYS[4]) == 0 then
    redis.call('LPUSH', KEYS[4], ARGV[5])
end
if redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[1]) then
    redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
    redis.call('ZADD', KEYS[3], ARGV[4], ARGV[5])
end
"""

# After this script a wakeup of this kind makes a new job. If arq has already taken the job, arq removes it itself.
_REMOVE_SCRIPT: Final = """
if redis.call('ZREM', KEYS[1], ARGV[1]) == 1 then
    redis.call('DEL', KEYS[2], KEYS[3])
end
"""

_log = structlog.get_logger(__name__)

serialize = orjson.dumps
deserialize = orjson.loads


def _pending_key(kind: WakeupKind) -> str:
    return f"spine:pending:{kind}"


def _job(kind: WakeupKind) -> bytes:
    payload = serialize_job(kind, (), {}, None, int(time.time() * 1000), serializer=serialize)
    assert payload is not None
    return payload


async def receive_wakeup(redis: Redis, wait_s: float) -> tuple[WakeupKind, str] | None:
    """Return the kind and job id of the next wakeup; None if none arrives in `wait_s` seconds. The caller must query."""
    popped = await redis.blpop(list(WAKEUP_LISTS.values()), timeout=wait_s)  # type: ignore[misc, arg-type]  # takes floats, returns an awaitable
    if popped is None:
        return None
    job_id = popped[1].decode()
    return cast("WakeupKind", job_id.partition(":")[0]), job_id


async def remove_job(redis: Redis, kind: WakeupKind, job_id: str) -> None:
    """Remove the job of a received wakeup from the queue."""
    await redis.eval(_REMOVE_SCRIPT, 3, WAKEUP_QUEUE, _pending_key(kind), job_key_prefix + job_id, job_id)  # type: ignore[misc]  # returns an awaitable


class Wakeups:
    """Sends wakeups in a background task, one request at a time. No caller waits, and sending never raises."""

    def __init__(self, redis: Redis, clock: DatabaseClock | None = None) -> None:
        self._redis = redis
        self._clock = clock or DatabaseClock()
        self._script = redis.register_script(_SEND_SCRIPT)
        self._now: set[WakeupKind] = set()
        self._due: dict[WakeupKind, set[int]] = {}
        self._sending: asyncio.Task[None] | None = None

    def wake(self, kind: WakeupKind) -> None:
        """Send a wakeup for work that exists now. Wakeups of one kind that wait to be sent become one."""
        self._now.add(kind)
        self._start()

    def wake_at(self, kind: WakeupKind, due_times_s: Iterable[float]) -> None:
        """Send wakeups for work that is due at these times by Postgres' clock, in seconds since the epoch."""
        times = {math.ceil(due_s * 1000 / RESOLUTION_MS) for due_s in due_times_s}
        if times:
            self._due.setdefault(kind, set()).update(times)
            self._start()

    async def acknowledge(self, kind: WakeupKind) -> None:
        """Acknowledge the wakeup of this kind before the query. After it a new wakeup is accepted."""
        await self._redis.delete(_pending_key(kind))

    async def close(self) -> None:
        """Wait until all wakeups are sent."""
        while self._sending is not None:
            await asyncio.wait([self._sending])

    def _start(self) -> None:
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())

    async def _send(self) -> None:
        try:
            while self._now or self._due:
                now, self._now = self._now, set()
                due, self._due = self._due, {}
                for kind in now:
                    await self._send_now(kind)
                for kind, steps in due.items():
                    await self._send_due(kind, steps)
                for kind in (*now, *due):
                    wakeups_sent(kind).inc()
        except (RedisError, OSError) as error:
            # The sweep finds the work of a lost wakeup.
            _log.warning("wakeup not sent", error=repr(error))
            self._now, self._due = set(), {}
        finally:
            self._sending = None

    async def _send_now(self, kind: WakeupKind) -> None:
        job_id = f"{kind}:{ULID()}"
        keys = [_pending_key(kind), job_key_prefix + job_id, WAKEUP_QUEUE, WAKEUP_LISTS[kind]]
        await self._script(keys=keys, args=[_PENDING_TTL_MS, _job(kind), _JOB_TTL_MS, self._clock.now_ms(), job_id])

    async def _send_due(self, kind: WakeupKind, steps: set[int]) -> None:
        payload = _job(kind)
        async with self._redis.pipeline(transaction=False) as pipe:
            for step in steps:
                pipe.set(f"{job_key_prefix}{kind}@{step}", payload, px=_JOB_TTL_MS, nx=True)
            pipe.zadd(WAKEUP_QUEUE, {f"{kind}@{step}": step * RESOLUTION_MS for step in steps}, nx=True)
            await pipe.execute()
