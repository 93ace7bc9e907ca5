"""The database: pools that connect as a role which owns nothing, and the way up to the newest revision."""

from pathlib import Path
from typing import Final, Literal

import asyncpg
import orjson
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

Role = Literal["spine_app", "spine_worker"]

# A caller waits this long for another one's idempotency key or row before it is told so (conventions 2.1).
LOCK_TIMEOUT = "3s"


# The queue's tables are empty one minute and hold millions the next, and a plan made for an empty table is kept: it would
# read the whole queue for every batch. Whatever a worker does in a hurry goes by an index.
WORKER_PLANS: Final = {"enable_seqscan": "off"}


def _session(role: Role, application_name: str) -> dict[str, str]:
    return {
        "role": role,
        "application_name": application_name,
        "lock_timeout": LOCK_TIMEOUT,
        "idle_in_transaction_session_timeout": "30s",
        "statement_timeout": "60s",
        "timezone": "UTC",
        "jit": "off",
        "plan_cache_mode": "auto",
        **(WORKER_PLANS if role == "spine_worker" else {}),
    }


async def _json_as_objects(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="binary",
        encoder=lambda value: b"\x01" + orjson.dumps(value),
        decoder=lambda raw: orjson.loads(memoryview(raw)[1:]),
    )


async def _nothing_to_reset(_: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Every setting here is local to a transaction, so a connection goes back as it came, without a round trip."""


async def open_pool(url: str, role: Role, application_name: str, size: int) -> "asyncpg.Pool[asyncpg.Record]":
    """Connections for hand-written SQL. jsonb columns come and go as Python values."""
    return await asyncpg.create_pool(
        url,
        min_size=1,
        max_size=size,
        server_settings=_session(role, application_name),
        init=_json_as_objects,
        reset=_nothing_to_reset,
        timeout=10,
        max_inactive_connection_lifetime=300,
    )


def open_engine(url: str, role: Role, application_name: str, size: int) -> AsyncEngine:
    """Connections for rows and the generic store."""

    async def connect(*_: object, **__: object) -> "asyncpg.Connection[asyncpg.Record]":
        return await asyncpg.connect(url, server_settings=_session(role, application_name), timeout=10)

    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        pool_size=size,
        max_overflow=0,
        pool_timeout=5,
        pool_pre_ping=False,
        json_serializer=lambda value: orjson.dumps(value).decode(),
        json_deserializer=orjson.loads,
    )


async def cluster_epoch(pool: "asyncpg.Pool[asyncpg.Record]") -> str:
    """Names the server that transaction ids belong to: in a restored copy elsewhere, old cursors mean nothing."""
    epoch: str = await pool.fetchval(
        "SELECT concat(system_identifier, '.', (SELECT oid FROM pg_database WHERE datname = current_database())) FROM pg_control_system()"
    )
    return epoch


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


async def migrate(url: str) -> None:
    """Apply every revision that the database has not seen. Needs the owning role; safe to run twice at once."""

    async def connect(*_: object, **__: object) -> "asyncpg.Connection[asyncpg.Record]":
        return await asyncpg.connect(url, timeout=30)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, pool_size=1)
    try:
        async with engine.connect() as connection:
            await connection.exec_driver_sql("SELECT pg_advisory_lock(hashtext('spine.migrations'))")
            await connection.commit()
            await connection.run_sync(_upgrade)
            await connection.commit()
            await connection.exec_driver_sql("SELECT pg_advisory_unlock(hashtext('spine.migrations'))")
    finally:
        await engine.dispose()
