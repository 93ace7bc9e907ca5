"""One connection that one loop keeps, so that no batch pays for borrowing it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, cast

import asyncpg

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection  # takes no parameters at run time


CONNECTION_ERRORS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What a connection that ends under one's hands may raise; the last where it ends between two of the driver's states."""

_ASYNC_COMMIT: Final = "SET synchronous_commit TO off; SET plan_cache_mode TO force_generic_plan"


class DedicatedConnection:
    """Borrows a connection at first use and keeps it; a broken one is given back and replaced at the next use.

    With `eager=True` commits do not wait for the disk: for claims and hand-overs, whose loss in a crash of the server
    means that the work is done again, never that it is lost. And their statements are planned once: they are written so
    that one plan fits whatever they are asked, where Postgres by itself plans some of them at every call.
    """

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", *, async_commit: bool = False) -> None:
        self._pool = pool
        self._eager = async_commit
        self._borrowed: object | None = None
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """The connection, for one user at a time. After any error it is replaced: its state is not worth guessing."""
        async with self._lock:
            if self._borrowed is None or self._is_gone():
                await self._open()
            try:
                yield self._connection
            except BaseException:
                await self._give_back()
                raise

    async def close(self) -> None:
        """Give the connection back."""
        async with self._lock:
            await self._give_back()

    @property
    def _connection(self) -> Connection:
        return cast("Connection", self._borrowed)

    def _is_gone(self) -> bool:
        try:
            return self._connection.is_closed()
        except asyncpg.InterfaceError:
            # The server ended it while nobody used it; the pool has taken it back and lets nobody ask it anything.
            return True

    async def _open(self) -> None:
        await self._give_back()
        self._borrowed = await self._pool.acquire()
        if self._eager:
            await self._connection.execute(_ASYNC_COMMIT)

    async def _give_back(self) -> None:
        borrowed, self._borrowed = cast("Connection | None", self._borrowed), None
        if borrowed is not None:
            with contextlib.suppress(OSError, TimeoutError, *CONNECTION_ERRORS):
                borrowed.terminate()  # nobody else may get it: an eager one's settings are its own
            with contextlib.suppress(OSError, TimeoutError, *CONNECTION_ERRORS):
                await self._pool.release(borrowed, timeout=5)  # type: ignore[arg-type]


async def write_each(connection: Connection, query: str, rows: Sequence[object], *args: object) -> None:
    """Run a statement that writes the row of each of `rows` once, and again while some were missed.

    One is missed where somebody else (a renewal of leases, say) wrote the same row at the same moment; what is there no
    longer, or says so already, is missed for good. So the statement must change nothing where it was run before.
    """
    left = len(rows) - _written(await connection.execute(query, *args))
    while left and (found := _written(await connection.execute(query, *args))):
        left -= found


async def fetch_each(connection: Connection, query: str, rows: Sequence[object], *args: object) -> list[Any]:
    """`write_each` for a statement that answers a row for each that it wrote; answers them all."""
    written: list[Any] = await connection.fetch(query, *args)
    while len(written) < len(rows) and (found := await connection.fetch(query, *args)):
        written += found
    return written


def _written(status: str) -> int:
    return int(status.rpartition(" ")[2])  # "UPDATE 3", "INSERT 0 3"
