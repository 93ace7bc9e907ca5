"""Resolves host names for all workspaces of a process, so that the names of one cannot hold up those of another.

Each workspace has so many look-ups at once, and all together have a bound; the others wait, until their own deadline.
Look-ups of one name are one. Answers are kept for their TTL, failures for a short time that grows. While the name servers of
a name do not answer, its last addresses are used (RFC 8767); a denial by its name servers ends them. Whoever gets addresses
judges them at every use, wherever they come from: see `ssrf_guard`.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

from spine.kernel.http_client.name_servers import Answer, NameNotFoundError, NameServersFailedError
from spine.kernel.settings import EgressSettings

current_workspace: Final[ContextVar[str]] = ContextVar("current_workspace", default="")
"""The workspace whose call is being made: aiohttp's interface to a resolver has no place for it."""

_TTL_S: Final = (10.0, 300.0)
# RFC 9520, 3.2: a failure is kept for 5 s, and doubled while it lasts.
_FAILURE_S: Final = (5.0, 30.0)
_MAX_NAMES: Final = 10_000


@dataclass(slots=True)
class _Known:
    """What is known of a name. Times are monotonic."""

    addresses: tuple[str, ...] = ()
    fresh_until_s: float = 0
    usable_until_s: float = 0
    """Until then the addresses are used if the name servers do not answer."""
    failures: int = 0
    failed_until_s: float = 0
    """Until then no look-up is made, because the last one failed."""
    denied: bool = False


class Resolver:
    """The names that a process knows, and the look-ups that it makes."""

    def __init__(
        self,
        ask: Callable[[str], Awaitable[Answer]],
        settings: EgressSettings,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._now_s = clock_s
        self._settings = settings
        self._turns = _Turns(settings.dns_lookups, settings.dns_lookups_per_workspace)
        self._running: dict[str, asyncio.Task[None]] = {}
        # Apart from each other: however many names fail, they push no name out that works.
        self._found: OrderedDict[str, _Known] = OrderedDict()
        self._failed: OrderedDict[str, _Known] = OrderedDict()

    async def __call__(self, host: str) -> list[str]:
        """Return the addresses of a host. Raises OSError if there are none, at the latest at the deadline."""
        if not self._is_settled(host):
            try:
                async with asyncio.timeout(self._settings.dns_timeout_s):
                    await self._look_up(host)
            except TimeoutError:
                pass  # no turn, or no answer in time
        known = self._find(host)
        if known is not None and known.addresses and self._now_s() < known.usable_until_s:
            return list(known.addresses)
        if known is not None and known.denied:
            raise NameNotFoundError(host)
        raise NameServersFailedError(host)

    async def close(self) -> None:
        """Cancel the look-ups that run."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _look_up(self, host: str) -> None:
        """Wait for the look-up of this name, which goes on for others if this caller gives up."""
        running = self._running.get(host) or await self._start(host)
        if running is not None:
            await asyncio.shield(running)

    async def _start(self, host: str) -> asyncio.Task[None] | None:
        """Start a look-up when its turn comes. None if the answer has come meanwhile."""
        turn = await self._turns.take(current_workspace.get())
        if host in self._running or self._is_settled(host):
            turn.give_back()
            return self._running.get(host)
        task = self._running[host] = asyncio.create_task(self._run(host))

        def end(ended: asyncio.Task[None]) -> None:
            del self._running[host]
            turn.give_back()
            if not ended.cancelled():
                ended.exception()  # marks it as seen: its callers may have given up

        task.add_done_callback(end)
        return task

    async def _run(self, host: str) -> None:
        try:
            answer = await self._ask(host)
        except NameNotFoundError:
            self._found.pop(host, None)
            self._fail(host, _Known(denied=True))
        except NameServersFailedError:
            self._fail(host, self._found.get(host) or _Known())
        else:
            fresh_until_s = self._now_s() + min(max(answer.ttl_s, _TTL_S[0]), _TTL_S[1])
            usable_until_s = max(fresh_until_s, self._now_s() + self._settings.dns_max_stale_s)
            self._failed.pop(host, None)
            _put(self._found, host, _Known(answer.addresses, fresh_until_s, usable_until_s))

    def _fail(self, host: str, known: _Known) -> None:
        before = self._find(host)
        known.failures = (before.failures if before is not None else 0) + 1
        known.failed_until_s = self._now_s() + min(_FAILURE_S[0] * 2.0 ** min(known.failures - 1, 10), _FAILURE_S[1])
        _put(self._found if known.addresses else self._failed, host, known)

    def _find(self, host: str) -> _Known | None:
        return self._found.get(host) or self._failed.get(host)

    def _is_settled(self, host: str) -> bool:
        known = self._find(host)
        return known is not None and self._now_s() < max(known.fresh_until_s, known.failed_until_s)


class _Turns:
    """The turns to make a look-up: so many at once for a workspace, and for all of them."""

    def __init__(self, total: int, per_workspace: int) -> None:
        self._all = asyncio.Semaphore(total)
        self._per_workspace = per_workspace
        self._own: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def take(self, workspace_id: str) -> "_Turn":
        """Wait for a turn: first among the workspace's own look-ups, then among all workspaces."""
        own = self._own.get(workspace_id)
        if own is None:
            own = self._own[workspace_id] = asyncio.Semaphore(self._per_workspace)
        await own.acquire()
        try:
            await self._all.acquire()
        except BaseException:
            own.release()
            raise
        return _Turn(own, self._all)


@dataclass(frozen=True, slots=True)
class _Turn:
    own: asyncio.Semaphore
    all: asyncio.Semaphore

    def give_back(self) -> None:
        self.own.release()
        self.all.release()


def _put(names: OrderedDict[str, _Known], host: str, known: _Known) -> None:
    """Keep what is known of a name as the newest; the oldest one makes room."""
    names[host] = known
    names.move_to_end(host)
    if len(names) > _MAX_NAMES:
        names.popitem(last=False)
