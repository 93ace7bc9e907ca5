"""A connection that one loop keeps, so that a batch does not wait for the pool."""

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
"""Errors that a broken connection raises. The last one comes if it breaks between two states of the driver."""

_ASYNC_COMMIT_SETTINGS: Final = "SET synchronous_commit TO off; SET plan_cache_mode TO force_generic_plan"


class DedicatedConnection:
    """Acquires a connection at first use and keeps it. A broken connection is replaced at the next use.

    `async_commit=True` sets `synchronous_commit` to off: commits do not wait for the disk. It is for claims and for
    moves from the outbox: if a crash of the server loses them, the work is done again, and none is lost. It also sets
    generic plans: each statement fits one plan for all parameters, but Postgres would plan some of them at every call.
    """

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", *, async_commit: bool = False) -> None:
        self._pool = pool
        self._async_commit = async_commit
        self._acquired: object | None = None
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """The connection, for one user at a time. It is replaced after any error, because its state is unknown.

        A cancellation stays one if the rollback after it fails: a loop that takes it for an error would never end.
        """
        async with self._lock:
            if self._acquired is None or self._is_closed():
                await self._open()
            try:
                yield self._connection
            except BaseException as error:
                await self._release()
                task = asyncio.current_task()
                if isinstance(error, CONNECTION_ERRORS) and task is not None and task.cancelling():
                    raise asyncio.CancelledError from error
                raise

    async def close(self) -> None:
        """Release the connection."""
        async with self._lock:
            await self._release()

    @property
    def _connection(self) -> Connection:
        return cast("Connection", self._acquired)

    def _is_closed(self) -> bool:
        try:
            return self._connection.is_closed()
        except asyncpg.InterfaceError:
            # The server closed it while it was idle. The pool has taken it back, and every method raises this error.
            return True

    async def _open(self) -> None:
        await self._release()
        self._acquired = await self._pool.acquire()
        if self._async_commit:
            await self._connection.execute(_ASYNC_COMMIT_SETTINGS)

    async def _release(self) -> None:
        acquired, self._acquired = cast("Connection | None", self._acquired), None
        if acquired is not None:
            with contextlib.suppress(OSError, TimeoutError, *CONNECTION_ERRORS):
                acquired.terminate()  # nobody else may get its settings
            with contextlib.suppress(OSError, TimeoutError, *CONNECTION_ERRORS):
                await self._pool.release(acquired, timeout=5)  # type: ignore[arg-type]


async def write_each(connection: Connection, query: str, rows: Sequence[object], *args: object) -> None:
    """Run a statement that writes one row for each of `rows`, again while it writes rows that it missed before.

    It misses a row that another transaction (a renewal of leases, for example) writes at the same time. It never writes
    a row that is deleted or has the values already. So the statement must be idempotent.
    """
    missed = len(rows) - _row_count(await connection.execute(query, *args))
    while missed and (found := _row_count(await connection.execute(query, *args))):
        missed -= found


async def fetch_each(connection: Connection, query: str, rows: Sequence[object], *args: object) -> list[Any]:
    """`write_each` for a statement that returns a row for each row that it wrote. Returns all of them."""
    written: list[Any] = await connection.fetch(query, *args)
    while len(written) < len(rows) and (found := await connection.fetch(query, *args)):
        written += found
    return written


def _row_count(status: str) -> int:
    return int(status.rpartition(" ")[2])  # "UPDATE 3", "INSERT 0 3"
