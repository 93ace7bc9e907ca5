"""Bells: arq jobs that carry nothing and say only "look". Redis may lose them all; the sweep looks anyway.

Two rules keep a bell from being lost while one of its kind is pending or running:
a ring is refused only while an earlier one has not been heard, and a worker says that it heard *before* it looks.

A ring for now is announced at the door of its kind, where idle workers wait. One of them picks it up, which says that it
heard, looks at once, and then takes the job out of the queue (`receive_wakeup`, `remove_job`). Jobs whose time comes later,
and those of a worker that died at the door, come by arq's own way.
"""

import asyncio
import math
import time
from collections.abc import Iterable
from typing import Any, Literal, cast, get_args
from urllib.parse import urlsplit

import orjson
import structlog
from arq.connections import RedisSettings
from arq.constants import job_key_prefix
from arq.jobs import serialize_job
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from ulid import ULID

from spine.kernel.metrics import wakeups_sent

WakeupKind = Literal["relay", "deliver", "send"]

WAKEUP_QUEUE = "spine:bells"
WAKEUP_LISTS: dict[WakeupKind, str] = {kind: f"spine:door:{kind}" for kind in get_args(WakeupKind)}
"""Lists that a ring pushes its job's id to: idle workers block on them, so they hear at once and need not look all the time."""
RESOLUTION_MS = 50
"""Due times are rung in steps of this many milliseconds: how late a bell may be, and how many there may be in a second."""
_PENDING_TTL_MS = 2_000
_JOB_TTL_MS = 4 * 3600 * 1000

# One round trip: a push at the door unless one lies there that nobody picked up, and a job with its place in the queue
# unless there is one of this kind. A push wakes one worker.
_SEND_SCRIPT = """
if redis.call('EXISTS', KEYS[4]) == 0 then
    redis.call('LPUSH', KEYS[4], ARGV[5])
end
if redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[1]) then
    redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
    redis.call('ZADD', KEYS[3], ARGV[4], ARGV[5])
end
"""

# From here on a ring of this kind makes a new job. One that arq has in hand by now is its own affair.
_REMOVE_SCRIPT = """
if redis.call('ZREM', KEYS[1], ARGV[1]) == 1 then
    redis.call('DEL', KEYS[2], KEYS[3])
end
"""

_log = structlog.get_logger(__name__)

serialize = orjson.dumps
deserialize = orjson.loads


def redis_settings(url: str, *, retries: int = 20) -> RedisSettings:
    """What arq and we connect with; it reconnects instead of dying when Redis restarts."""
    retry: dict[str, Any] = {
        "retry": Retry(ExponentialBackoff(cap=1, base=0.05), retries),
        "retry_on_error": [
            RedisConnectionError,
            RedisTimeoutError,
            ConnectionRefusedError,
            ConnectionResetError,
            FileNotFoundError,
        ],
        "conn_timeout": 2,
        "conn_retries": 60,
    }
    parts = urlsplit(url)
    if parts.scheme == "sentinel":
        hosts = [
            (host.rpartition(":")[0], int(host.rpartition(":")[2]))
            for host in parts.netloc.rpartition("@")[2].split(",")
        ]
        master, _, database = parts.path.strip("/").partition("/")
        return RedisSettings(
            host=hosts,
            sentinel=True,
            sentinel_master=master,
            database=int(database or 0),
            password=parts.password,
            **retry,
        )
    settings = RedisSettings.from_dsn(url)
    for name, value in retry.items():
        setattr(settings, name, value)
    return settings


def open_redis(url: str) -> Redis:
    """A client that connects when it is first used, and gives up on a call after a second: no caller waits for a bell.

    Do not stop a task that uses it by cancelling it alone: before Python 3.12 the `asyncio.wait_for` it sends with may
    lose a cancellation (https://github.com/python/cpython/issues/86296).
    """
    settings = redis_settings(url, retries=1)
    options: dict[str, Any] = {
        "socket_timeout": 1,
        "socket_connect_timeout": 1,
        "retry": settings.retry,
        "retry_on_error": settings.retry_on_error,
    }
    if settings.sentinel:
        sentinel = Sentinel(settings.host, socket_timeout=1, password=settings.password)  # type: ignore[no-untyped-call]  # redis-py 5
        master: Redis = sentinel.master_for(settings.sentinel_master, db=settings.database, **options)
        return master
    client: Redis = Redis.from_url(url, **options)
    return client


def _pending_key(kind: WakeupKind) -> str:
    return f"spine:unheard:{kind}"


def _job(kind: WakeupKind) -> bytes:
    payload = serialize_job(kind, (), {}, None, int(time.time() * 1000), serializer=serialize)
    assert payload is not None
    return payload


async def receive_wakeup(redis: Redis, wait_s: float) -> tuple[WakeupKind, str] | None:
    """The next bell that is announced, and its job's id; None when none came in that time. Whoever is answered looks."""
    answer = await redis.blpop(list(WAKEUP_LISTS.values()), timeout=wait_s)  # type: ignore[misc, arg-type]  # takes floats, answers awaitables
    if answer is None:
        return None
    job_id = answer[1].decode()
    return cast("WakeupKind", job_id.partition(":")[0]), job_id


async def remove_job(redis: Redis, kind: WakeupKind, job_id: str) -> None:
    """Take the job of a bell that was heard at the door out of the queue."""
    await redis.eval(_REMOVE_SCRIPT, 3, WAKEUP_QUEUE, _pending_key(kind), job_key_prefix + job_id, job_id)  # type: ignore[misc]  # answers an awaitable


class Wakeups:
    """Rings without making anybody wait: a ring is sent in the background, one at a time, and never raises."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._script = redis.register_script(_SEND_SCRIPT)
        self._wanted: set[WakeupKind] = set()
        self._due: dict[WakeupKind, set[int]] = {}
        self._sending: asyncio.Task[None] | None = None

    def wake(self, kind: WakeupKind) -> None:
        """Say that there is work of this kind now. Rings made while one is under way become one."""
        self._wanted.add(kind)
        self._start()

    def wake_at(self, kind: WakeupKind, due_times_s: Iterable[float]) -> None:
        """Say that there will be work at these times (seconds since the epoch)."""
        self._due.setdefault(kind, set()).update(math.ceil(due_s * 1000 / RESOLUTION_MS) for due_s in due_times_s)
        self._start()

    async def acknowledge(self, kind: WakeupKind) -> None:
        """Say, before looking, that a ring was heard; from here on a new one is let through."""
        await self._redis.delete(_pending_key(kind))

    async def close(self) -> None:
        """Send what is still to be rung."""
        while self._sending is not None:
            await asyncio.wait([self._sending])

    def _start(self) -> None:
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())

    async def _send(self) -> None:
        try:
            while self._wanted or self._due:
                wanted, self._wanted = self._wanted, set()
                due, self._due = self._due, {}
                for kind in wanted:
                    await self._send_now(kind)
                for kind, steps in due.items():
                    await self._send_due(kind, steps)
                for kind in (*wanted, *due):
                    wakeups_sent(kind).inc()
        except (RedisError, OSError) as error:
            # The sweep finds what this bell would have told of.
            _log.warning("bell not rung", error=repr(error))
            self._wanted, self._due = set(), {}
        finally:
            self._sending = None

    async def _send_now(self, kind: WakeupKind) -> None:
        job_id = f"{kind}:{ULID()}"
        keys = [_pending_key(kind), job_key_prefix + job_id, WAKEUP_QUEUE, WAKEUP_LISTS[kind]]
        await self._script(keys=keys, args=[_PENDING_TTL_MS, _job(kind), _JOB_TTL_MS, int(time.time() * 1000), job_id])

    async def _send_due(self, kind: WakeupKind, steps: set[int]) -> None:
        payload = _job(kind)
        async with self._redis.pipeline(transaction=False) as pipe:
            for step in steps:
                pipe.set(f"{job_key_prefix}{kind}@{step}", payload, px=_JOB_TTL_MS, nx=True)
            pipe.zadd(WAKEUP_QUEUE, {f"{kind}@{step}": step * RESOLUTION_MS for step in steps}, nx=True)
            await pipe.execute()
