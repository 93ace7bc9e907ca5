"""The database: connection pools of roles that own nothing, and schema migrations."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import asyncpg
import orjson
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from spine.kernel.partitions import ensure_partitions

Role = Literal["spine_app", "spine_worker"]

LOCK_TIMEOUT: Final = "3s"
"""How long a caller waits for another caller's idempotency key or row before it gets an error (conventions 2.1)."""

# The queue tables may be empty and hold millions of rows a minute later. PostgreSQL caches a plan made for an empty
# table, which would scan the whole queue for every batch. So workers always use an index.
WORKER_PLANS: Final = {"enable_seqscan": "off"}


def _session(role: Role, application_name: str) -> dict[str, str]:
    return {
        "role": role,
        "application_name": application_name,
        "lock_timeout": LOCK_TIMEOUT,
        "idle_in_transaction_session_timeout": "30s",
        "statement_timeout": "60s",
        "tcp_user_timeout": "30s",  # ends the session of a client that reads nothing, over TCP and in any version
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


async def _no_reset(_: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Skip the reset, which takes a round trip: every setting is local to a transaction."""


async def open_pool(url: str, role: Role, application_name: str, size: int) -> "asyncpg.Pool[asyncpg.Record]":
    """Open a pool for hand-written SQL. jsonb columns are converted from and to Python values."""
    return await asyncpg.create_pool(
        url,
        min_size=1,
        max_size=size,
        server_settings=_session(role, application_name),
        init=_json_as_objects,
        reset=_no_reset,
        timeout=10,
        max_inactive_connection_lifetime=300,
    )


def open_engine(url: str, role: Role, application_name: str, size: int) -> AsyncEngine:
    """Return an engine for ORM rows and the generic store."""

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
    """Return the identity of the server and database that transaction ids belong to. Cursors of another one are invalid."""
    epoch: str = await pool.fetchval(
        "SELECT concat(system_identifier, '.', (SELECT oid FROM pg_database WHERE datname = current_database())) FROM pg_control_system()"
    )
    return epoch


def migration_config() -> Config:
    """Return the Alembic configuration of the schema migrations."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


async def migrate(url: str, revision: str = "head") -> None:
    """Apply every revision up to `revision` that the database lacks. Needs the owner role; concurrent calls are safe.

    A database at the newest revision also gets the partitions of the next days that it lacks.
    """
    await _run(command.upgrade, url, revision)
    if revision == "head":
        connection = await asyncpg.connect(url, timeout=30)
        try:
            await ensure_partitions(connection)
        finally:
            await connection.close()


async def downgrade(url: str, revision: str = "base") -> None:
    """Revert every revision above `revision`, with its data. Needs the owner role."""
    await _run(command.downgrade, url, revision)


async def _run(action: Callable[[Config, str], None], url: str, revision: str) -> None:
    config = migration_config()

    def act(connection: Connection) -> None:
        config.attributes["connection"] = connection
        action(config, revision)

    async def connect(*_: object, **__: object) -> "asyncpg.Connection[asyncpg.Record]":
        return await asyncpg.connect(url, timeout=30)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, pool_size=1)
    try:
        async with engine.connect() as connection:
            await connection.exec_driver_sql("SELECT pg_advisory_lock(hashtext('spine.migrations'))")
            await connection.commit()
            await connection.run_sync(act)
            await connection.commit()
            await connection.exec_driver_sql("SELECT pg_advisory_unlock(hashtext('spine.migrations'))")
    finally:
        await engine.dispose()
