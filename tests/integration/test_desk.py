"""The connection that a worker's loop keeps, when the server ends it."""

import asyncio

import asyncpg
import pytest

from spine.database import open_pool
from workers.desk import LOST, Desk


@pytest.mark.parametrize("in_use", [False, True])
async def test_a_kept_connection_that_the_server_ended_is_replaced(database: str, in_use: bool) -> None:
    """After a restart of the server, idle or in the middle of a batch, the next use gets a new connection."""
    pool, operator = await open_pool(database, "spine_worker", "desk", 4), await asyncpg.connect(database)
    desk = Desk(pool, eager=True)
    try:
        async with desk.connection() as connection:
            first = await connection.fetchval("SELECT pg_backend_pid()")

        async def use() -> None:
            async with desk.connection() as connection:
                await operator.execute("SELECT pg_terminate_backend($1)", first)
                await connection.fetchval("SELECT pg_sleep(10)")

        if in_use:
            with pytest.raises(LOST):
                await use()
        else:
            await operator.execute("SELECT pg_terminate_backend($1)", first)
            # The end reaches the idle connection with the loop's next turns.
            await asyncio.sleep(0.2)
        async with desk.connection() as connection:
            assert await connection.fetchval("SELECT pg_backend_pid()") != first
            assert await connection.fetchval("SHOW synchronous_commit") == "off"
    finally:
        await desk.close()
        await operator.close()
        await pool.close()
