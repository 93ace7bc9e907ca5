"""A line of work: what the worker process does with one kind of cargo, and what every line is given to do it with."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

import asyncpg
import structlog

from spine.kernel.http_client import HttpClient
from spine.kernel.settings import WorkSettings
from spine.kernel.vault import Vault
from spine.kernel.wakeups import WakeupKind, Wakeups
from workers.heartbeat import Heartbeat

_log = structlog.get_logger(__name__)

OFFLINE_POLL_S: Final = 1.0
"""How often Postgres is asked while Redis is away."""
_PAUSE_MAX_S: Final = 2.0


@dataclass(slots=True)
class WakeupStatus:
    """Whether bells can be heard; not before the first look at Redis."""

    offline: bool = True
    on_wakeup: Callable[[WakeupKind], None] = lambda _: None
    """Called when a bell was heard at the door."""
    on_reconnect: Callable[[], None] = lambda: None
    """Called when bells are heard (again): those of the time before are lost."""


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """The held resources of a worker process. `pool` connects as the worker role."""

    work: WorkSettings
    worker_id: str
    pool: "asyncpg.Pool[asyncpg.Record]"
    http_client: HttpClient
    wakeups: Wakeups
    vault: Vault
    heartbeat: Heartbeat
    wakeup_status: WakeupStatus


class Pipeline(Protocol):
    """A kind of work. Made when the database answers, run until the process stops."""

    def on_wakeup(self, kind: WakeupKind) -> None:
        """A bell rang: look soon. Called for every kind; must not block."""
        ...

    async def run(self) -> None:
        """Work until cancelled. What a loop inside meets with is its own affair: nothing may escape."""
        ...

    async def drain(self, within_s: float) -> None:
        """Stop claiming, end what is in flight within that time, record it, give the rest back. Called before the cancellation."""
        ...


PipelineFactory = Callable[[WorkerContext], Pipeline]


async def run_forever(name: str, step: Callable[[], Awaitable[None]]) -> None:
    """Repeat a step for ever; after an error (the database is away, say) wait a little, longer each time, and go on."""
    pause_s = 0.05
    while True:
        try:
            await step()
            pause_s = 0.05
        except asyncio.CancelledError:
            raise
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            _log.warning("step failed", step=name, error=repr(error))
        except Exception:
            _log.exception("step failed", step=name)
        else:
            continue
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, _PAUSE_MAX_S)


async def wait_for_wakeup(wakeups: asyncio.Event, at_most_s: float, wakeup_status: WakeupStatus | None = None) -> None:
    """Until it rings, or for so long at most: a bell may be lost. While bells cannot be heard, a second at most."""
    until_s = time.monotonic() + at_most_s
    while not wakeups.is_set() and (left_s := until_s - time.monotonic()) > 0:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(left_s, OFFLINE_POLL_S)):
                await wakeups.wait()
        if wakeup_status is not None and wakeup_status.offline:
            break
    wakeups.clear()
