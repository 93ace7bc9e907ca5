"""`DedicatedConnection`: it replaces a broken connection, and leaks no settings into the pool."""

import asyncio

import asyncpg
import pytest

from spine.kernel.database import open_pool
from workers.connection import CONNECTION_ERRORS, DedicatedConnection


@pytest.mark.parametrize("in_use", [False, True])
async def test_a_connection_that_the_server_closed_is_replaced(database: str, in_use: bool) -> None:
    """If the server closes the connection, idle or in use, the next use gets a new one with the same settings."""
    pool, operator = await open_pool(database, "spine_worker", "test", 4), await asyncpg.connect(database)
    db = DedicatedConnection(pool, async_commit=True)
    try:
        async with db.connection() as connection:
            first = await connection.fetchval("SELECT pg_backend_pid()")

        async def use() -> None:
            async with db.connection() as connection:
                await operator.execute("SELECT pg_terminate_backend($1)", first)
                await connection.fetchval("SELECT pg_sleep(10)")

        if in_use:
            with pytest.raises(CONNECTION_ERRORS):
                await use()
        else:
            await operator.execute("SELECT pg_terminate_backend($1)", first)
            # The idle connection is closed in the next iterations of the loop.
            await asyncio.sleep(0.2)
        async with db.connection() as connection:
            assert await connection.fetchval("SELECT pg_backend_pid()") != first
            assert await connection.fetchval("SHOW synchronous_commit") == "off"
    finally:
        await db.close()
        await operator.close()
        await pool.close()


async def test_async_commit_does_not_leak_into_the_pool(database: str) -> None:
    """After an error in a loop with asynchronous commits, the pool's next user has synchronous commits (promise 3)."""
    pool = await open_pool(database, "spine_worker", "test", 1)
    db = DedicatedConnection(pool, async_commit=True)
    settings = "SELECT name, setting FROM pg_settings WHERE name IN ('plan_cache_mode', 'synchronous_commit')"
    try:
        async with pool.acquire() as pooled:
            before = await pooled.fetch(settings)
        async with db.connection() as connection:
            assert await connection.fetch(settings) != before

        async def fail() -> None:
            async with db.connection() as connection:
                await connection.fetchval("SELECT 1 / 0")

        with pytest.raises(asyncpg.DivisionByZeroError):
            await fail()
        async with pool.acquire() as pooled:
            assert await pooled.fetch(settings) == before
    finally:
        await db.close()
        await pool.close()


async def test_a_cancellation_outlives_a_rollback_that_fails(database: str) -> None:
    """A loop that is cancelled in a transaction ends, though its connection breaks at the same time."""
    pool, operator = await open_pool(database, "spine_worker", "test", 4), await asyncpg.connect(database)
    db = DedicatedConnection(pool)
    began = asyncio.Event()

    async def work() -> None:
        async with db.connection() as connection, connection.transaction():
            pid = await connection.fetchval("SELECT pg_backend_pid()")
            try:
                began.set()
                await asyncio.sleep(60)
            finally:
                await operator.execute("SELECT pg_terminate_backend($1)", pid)
                await asyncio.sleep(0.2)

    task = asyncio.create_task(work())
    try:
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    finally:
        await db.close()
        await operator.close()
        await pool.close()
