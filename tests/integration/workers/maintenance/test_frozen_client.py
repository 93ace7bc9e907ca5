"""A client that is frozen in the middle of a statement: its session is ended, so that it keeps no row from others."""

import asyncio
from datetime import timedelta
from typing import Any, cast

import asyncpg
import pytest

from spine.kernel.database import open_pool
from tests.delivery_engine import Engine

_ROWS = 200
"""Rows of 256 KiB: more than the buffers between server and client hold."""
_CLAIM = "UPDATE spine.outbox SET type = type RETURNING repeat('x', 262144)"
_FREE = "SELECT count(*) FROM (SELECT FROM spine.outbox FOR UPDATE SKIP LOCKED) AS free"
_END = "SELECT spine.frozen_sessions_end($1)"


async def test_the_rows_of_a_frozen_client_are_free_again(engine: Engine) -> None:
    """A claim whose client reads nothing keeps its rows locked until its session is ended; a session at work is not ended."""
    await engine.publish(count=_ROWS)
    pool = await open_pool(engine.url, "spine_worker", "spine worker", 3)
    try:
        async with pool.acquire() as frozen, pool.acquire() as busy:
            working = asyncio.create_task(busy.fetchval("SELECT pg_sleep(3)"))
            transport = cast("Any", frozen)._con._transport
            prepared = await frozen.prepare(_CLAIM)
            transport.pause_reading()
            claim = asyncio.create_task(prepared.fetch())
            await engine.until(lambda: engine.pool.fetchval(f"SELECT ({_FREE}) = 0"))
            assert await pool.fetchval(_END, timedelta(seconds=60)) == 0
            await engine.until(lambda: pool.fetchval(_END, timedelta(seconds=0.5)))
            await engine.until(lambda: engine.pool.fetchval(f"SELECT ({_FREE}) = {_ROWS}"))
            transport.resume_reading()
            with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
                await claim
            await working
    finally:
        pool.terminate()


async def test_a_transaction_that_its_client_left_open_is_ended(engine: Engine) -> None:
    """A process that freezes between two statements of a transaction keeps its locks for 30 s."""
    pool = await open_pool(engine.url, "spine_worker", "spine worker", 1)
    try:
        assert await pool.fetchval("SHOW idle_in_transaction_session_timeout") == "30s"
        async with pool.acquire() as frozen:
            await frozen.execute("SET idle_in_transaction_session_timeout = '1s'")
            await engine.publish()
            await frozen.execute("BEGIN")
            await frozen.fetch("SELECT FROM spine.outbox FOR UPDATE SKIP LOCKED")
            assert await engine.pool.fetchval(_FREE) == 0
            await engine.until(lambda: engine.pool.fetchval(f"SELECT ({_FREE}) = 1"))
    finally:
        pool.terminate()
