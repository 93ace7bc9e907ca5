"""A pipeline: one kind of work of the worker process, and the resources that every pipeline gets."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import asyncpg
import structlog

from spine.kernel.database_clock import DatabaseClock
from spine.kernel.http_client import HttpClient
from spine.kernel.settings import WorkSettings
from spine.kernel.vault import Vault
from spine.kernel.wakeups import WakeupKind, Wakeups
from workers.heartbeat import Heartbeat

_log = structlog.get_logger(__name__)

OFFLINE_POLL_S: Final = 1.0
"""How often Postgres is queried while Redis is unreachable."""
_PAUSE_MAX_S: Final = 2.0


@dataclass(slots=True)
class WakeupStatus:
    """Whether wakeups arrive. A worker is offline until its first successful poll of Redis."""

    offline: bool = True
    on_wakeup: Callable[[WakeupKind], None] = lambda _: None
    """Called with the kind of each wakeup that arrives by the wakeup lists."""
    on_reconnect: Callable[[], None] = lambda: None
    """Called when the worker comes online: earlier wakeups may be lost."""
    clock: DatabaseClock = field(default_factory=DatabaseClock)
    """The clock by which wakeups for later are due."""


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """The resources of a worker process. `pool` connects as the worker role."""

    work: WorkSettings
    worker_id: str
    pool: "asyncpg.Pool[asyncpg.Record]"
    http_client: HttpClient
    wakeups: Wakeups
    vault: Vault
    heartbeat: Heartbeat
    wakeup_status: WakeupStatus
    public_url: str
    """The API's URL, which providers call with receipts."""


class Pipeline(Protocol):
    """One kind of work. It is created when the database is reachable, and runs until the process stops."""

    def on_wakeup(self, kind: WakeupKind) -> None:
        """There may be work of this kind: query soon. Called for every kind of wakeup; must not block."""
        ...

    async def run(self) -> None:
        """Work until cancelled. Must handle its own errors and raise none."""
        ...

    async def drain(self, timeout_s: float) -> None:
        """Stop claiming, finish and record work in flight, release the rest. Called before `run` is cancelled."""
        ...


PipelineFactory = Callable[[WorkerContext], Pipeline]


async def run_forever(name: str, step: Callable[[], Awaitable[None]]) -> None:
    """Repeat a step for ever. After an error (an unreachable database, for example) wait, with backoff, and go on."""
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


async def wait_for_wakeup(wakeup: asyncio.Event, at_most_s: float, wakeup_status: WakeupStatus | None = None) -> None:
    """Wait for a wakeup, at most `at_most_s`, since it may be lost. While offline, wait at most one second."""
    until_s = time.monotonic() + at_most_s
    while not wakeup.is_set() and (left_s := until_s - time.monotonic()) > 0:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(left_s, OFFLINE_POLL_S)):
                await wakeup.wait()
        if wakeup_status is not None and wakeup_status.offline:
            break
    wakeup.clear()
