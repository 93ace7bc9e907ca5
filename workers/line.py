"""A line of work: what the worker process does with one kind of cargo, and what every line is given to do it with."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

import asyncpg
import structlog

from spine.bell import Bell, Kind
from spine.egress import Egress
from spine.settings import WorkSettings
from spine.vault import Vault
from workers.roster import Roster

_log = structlog.get_logger("workers.line")

DEAF_POLL_S: Final = 1.0
"""How often Postgres is asked while Redis is away."""
_PAUSE_MAX_S: Final = 2.0


@dataclass(slots=True)
class Hearing:
    """Whether bells can be heard; not before the first look at Redis."""

    deaf: bool = True
    rang: Callable[[Kind], None] = lambda _: None
    """Called when a bell was heard at the door."""
    regained: Callable[[], None] = lambda: None
    """Called when bells are heard (again): those of the time before are lost."""


@dataclass(frozen=True, slots=True)
class Tools:
    """The held resources of a worker process. `pool` connects as the worker role."""

    work: WorkSettings
    worker_id: str
    pool: "asyncpg.Pool[asyncpg.Record]"
    egress: Egress
    bell: Bell
    vault: Vault
    roster: Roster
    hearing: Hearing


class Line(Protocol):
    """A kind of work. Made when the database answers, run until the process stops."""

    def hear(self, kind: Kind) -> None:
        """A bell rang: look soon. Called for every kind; must not block."""
        ...

    async def run(self) -> None:
        """Work until cancelled. What a loop inside meets with is its own affair: nothing may escape."""
        ...

    async def drain(self, within_s: float) -> None:
        """Stop claiming, end what is in flight within that time, record it, give the rest back. Called before the cancellation."""
        ...


LineMaker = Callable[[Tools], Line]


async def keep_going(name: str, step: Callable[[], Awaitable[None]]) -> None:
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


async def wait_for_bell(bell: asyncio.Event, at_most_s: float, hearing: Hearing | None = None) -> None:
    """Until it rings, or for so long at most: a bell may be lost. While bells cannot be heard, a second at most."""
    until_s = time.monotonic() + at_most_s
    while not bell.is_set() and (left_s := until_s - time.monotonic()) > 0:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(left_s, DEAF_POLL_S)):
                await bell.wait()
        if hearing is not None and hearing.deaf:
            break
    bell.clear()
