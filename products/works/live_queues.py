"""Live queues of one API process: one look a moment at the versions of all queues that anybody follows.

    trigger raises the queue's version ─► look: one query for all followed queues ─► changed ones are read once ─► their streams

A stream holds no connection of the database, and no memory beyond the newest state of its queue, which its streams share:
who reads slowly skips states. The server cuts a client that reads nothing (`spine.kernel.http_server`).
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import asyncpg
import structlog
from sqlalchemy.exc import DBAPIError

from spine.kernel import ids
from spine.kernel.authentication import CACHE_S, Caller
from spine.kernel.errors import Forbidden, SpineError, TooManyRequests, Unauthenticated
from spine.kernel.metrics import rate_limited
from spine.kernel.platform import Platform
from spine.kernel.unit_of_work import UnitOfWork

LOOK_S: Final = 0.4
"""Seconds between two looks: a change is sent within a second."""
_AT_ONCE: Final = 4
"""Changed queues that are read at the same time."""
_DATABASE_ERRORS: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, DBAPIError)
_VERSIONS: Final = "SELECT * FROM spine.task_queue_versions($1::text[], $2::text[])"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Shown:
    """A state of a queue: its version, and its JSON."""

    version: int
    body: str


ReadQueue = Callable[[UnitOfWork, str], Awaitable[Shown]]


@dataclass(slots=True)
class _Followed:
    """A queue that streams follow. `caller` is one of theirs: it names the workspace."""

    caller: Caller
    shown: Shown
    streams: int = 0

    def show(self, newer: Shown) -> None:
        """Keep the newest state, in whatever order states arrive."""
        if newer.version > self.shown.version:
            self.shown = newer


class Subscription:
    """One stream of one queue."""

    def __init__(self, live: "LiveQueues", caller: Caller, followed: _Followed) -> None:
        self._live = live
        self._caller = caller
        self._followed = followed

    async def changes(self, authorization: str, scope: str, is_stopping: Callable[[], bool]) -> AsyncIterator[Shown]:
        """Yield the queue at once and after each change, until its key or the server comes to an end."""
        sent = -1
        checked_s = time.monotonic()
        while not is_stopping():
            if time.monotonic() - checked_s >= CACHE_S:
                checked_s = time.monotonic()
                if not await self._live.is_allowed(authorization, scope, self._caller):
                    return
            if self._followed.shown.version > sent:
                sent = self._followed.shown.version
                yield self._followed.shown
            else:
                await self._live.look_ends()


class LiveQueues:
    """The queues that are followed in this process."""

    def __init__(self, platform: Platform, read: ReadQueue) -> None:
        self._platform = platform
        self._read = read
        self._followed: dict[tuple[str, str], _Followed] = {}
        self._streams: Counter[str] = Counter()
        self._looking: asyncio.Task[None] | None = None
        self._look_ended = asyncio.Event()
        self._slots = asyncio.Semaphore(_AT_ONCE)

    @contextlib.asynccontextmanager
    async def subscribe(self, caller: Caller, user_id: str) -> AsyncIterator[Subscription]:
        """Follow a queue within the block. Raises NotFound, TooManyRequests `too_many_streams`."""
        self._refuse_too_many(caller.workspace_id)
        self._streams[caller.workspace_id] += 1
        try:
            shown = await self._state(caller, user_id)
            key = caller.workspace_id, user_id
            followed = self._followed.setdefault(key, _Followed(caller, shown))
            followed.show(shown)
            followed.streams += 1
            try:
                if self._looking is None:
                    self._looking = asyncio.create_task(self._look_on())
                yield Subscription(self, caller, followed)
            finally:
                followed.streams -= 1
                if not followed.streams:
                    del self._followed[key]
        finally:
            self._streams[caller.workspace_id] -= 1
            self._streams = +self._streams

    def _refuse_too_many(self, workspace_id: str) -> None:
        http = self._platform.http
        if self._streams[workspace_id] < http.max_streams_per_workspace and self._streams.total() < http.max_streams:
            return
        rate_limited("streams")
        raise TooManyRequests(
            f"this workspace has {http.max_streams_per_workspace} streams open here, or all have {http.max_streams}; "
            "close one, or read the queue instead",
            retry_after_s=5,
            code="too_many_streams",
        )

    def close(self) -> None:
        """Look no more. The streams have ended before."""
        if self._looking is not None:
            self._looking.cancel()

    async def look_ends(self) -> None:
        """Wait for the end of the present look; not longer than a look should take, whatever the database does."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * LOOK_S):
                await self._look_ended.wait()

    async def is_allowed(self, authorization: str, scope: str, caller: Caller) -> bool:
        """True unless the key was revoked, has expired or lost the scope. While the database is away no key is revoked."""
        try:
            (await self._platform.authenticator.caller(authorization, lambda: f"stream {caller.key_id}")).require(scope)
        except (Unauthenticated, Forbidden):
            return False
        except (SpineError, *_DATABASE_ERRORS) as error:
            _log.warning("key of a stream not checked", error=repr(error))
        return True

    async def _state(self, caller: Caller, user_id: str) -> Shown:
        unit = UnitOfWork(self._platform, caller, ids.mint(ids.PREFIXES["request"]), "live queue", None)
        shown: Shown = await unit.read(lambda: self._read(unit, user_id))
        return shown

    async def _look_on(self) -> None:
        try:
            while self._followed:
                await asyncio.sleep(LOOK_S)
                try:
                    await self._look()
                except _DATABASE_ERRORS as error:
                    _log.warning("queues not looked at", error=repr(error))
                ended, self._look_ended = self._look_ended, asyncio.Event()
                ended.set()
        finally:
            self._looking = None

    async def _look(self) -> None:
        if not self._followed:
            return
        workspace_ids, user_ids = zip(*self._followed, strict=True)
        rows = await self._platform.pool.fetch(_VERSIONS, list(workspace_ids), list(user_ids), timeout=2.0)
        async with asyncio.TaskGroup() as reading:
            for row in rows:
                followed = self._followed.get((row["workspace_id"], row["user_id"]))
                if followed is not None and row["version"] > followed.shown.version:
                    reading.create_task(self._refresh(followed, row["user_id"]))

    async def _refresh(self, followed: _Followed, user_id: str) -> None:
        """Read a changed queue. One that cannot be read now is read after the next look."""
        async with self._slots:
            try:
                followed.show(await self._state(followed.caller, user_id))
            except (SpineError, *_DATABASE_ERRORS) as error:
                _log.warning("queue not read", error=repr(error))
