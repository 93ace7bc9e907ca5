"""The models in the code and the tables of the migrations say the same."""

from typing import Any

import asyncpg
from sqlalchemy.dialects import postgresql

import products.catalogue  # noqa: F401  # every room declares its rows when it is imported
from spine.kernel.database import migrate
from spine.kernel.resource import Row
from spine.kernel.test_clock import TIME_COLUMNS

STILL = {
    "created_at": "when it was made",
    "updated_at": "when it was last changed",
    "accepted_at": "when an event, or a provider, was taken in",
    "started_at": "when it began",
    "ended_at": "when it ended",
    "failed_at": "when it failed",
    "left_at": "when an attempt was left for the next one",
    "delivered_at": "when it arrived",
    "read_at": "when it was read",
    "sent_at": "when it was sent",
    "taken_at": "when the sandbox took it",
    "received_at": "when a receipt came",
    "at": "when an entry was written",
    "seen_at": "when a worker last said that it lives",
    "closed_at": "when it ended",
    "disabled_at": "when it was disabled",
    "deleted_at": "when it was deleted",
    "erased_at": "when it was erased",
    "last_used_at": "when it was last used",
    "valid_from": "when a subscription began to hold: compared with events' times, which stay too",
    "valid_to": "when a subscription ceased to hold, likewise",
}
"""Columns that tell what happened, which the test clock leaves as it was."""


PARTLY_MODELLED = {"messages", "attempts"}
"""Written and read by SQL of their own; their row classes hold what the generic store needs."""
COLUMNS = """
    SELECT c.relname AS table, a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS required
      FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
     WHERE c.relnamespace = 'spine'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
       AND a.attnum > 0 AND NOT a.attisdropped
"""


async def test_models_equal_migrations(database: str) -> None:
    """Each column of a row class is in the database, of the same type and as nullable, and the reverse."""
    connection = await asyncpg.connect(database)
    try:
        found = await connection.fetch(COLUMNS)
    finally:
        await connection.close()
    modelled = {table.name for table in Row.metadata.tables.values()}
    assert len(modelled) >= 5
    migrated = {
        (row["table"], row["name"], row["type"], not row["required"]) for row in found if row["table"] in modelled
    }
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # the library leaves it so
    declared = {
        (table.name, column.name, column.type.compile(dialect).lower().partition(" collate")[0], bool(column.nullable))
        for table in Row.metadata.tables.values()
        for column in table.columns
    }
    assert sorted(declared - migrated) == []
    assert sorted(column for column in migrated - declared if column[0] not in PARTLY_MODELLED) == []


async def test_migrating_twice_changes_nothing(database: str) -> None:
    """A database that is up to date is left as it is."""

    async def columns() -> list[Any]:
        connection = await asyncpg.connect(database)
        try:
            return await connection.fetch(
                "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'spine' ORDER BY 1, 2"
            )
        finally:
            await connection.close()

    before = await columns()
    await migrate(database)
    assert await columns() == before


async def test_the_test_clock_knows_every_time(module_database: str) -> None:
    """Each timestamptz column is moved by the test clock, or tells of what happened and is left alone (wire.md)."""
    connection = await asyncpg.connect(module_database)
    try:
        found = await connection.fetch(
            "SELECT c.table_name, c.column_name FROM information_schema.columns c JOIN pg_class k ON k.relname = c.table_name "
            "AND k.relnamespace = 'spine'::regnamespace WHERE c.table_schema = 'spine' AND k.relkind IN ('r', 'p') "
            "AND NOT k.relispartition AND c.data_type = 'timestamp with time zone'"
        )
    finally:
        await connection.close()
    times = {(row["table_name"], row["column_name"]) for row in found}
    moved = {(column.table, column.name) for column in TIME_COLUMNS}
    assert moved <= times
    assert sorted((table, column) for table, column in times - moved if column not in STILL) == []


async def test_payloads_are_compressed_with_lz4_where_there_is_lz4(module_database: str) -> None:
    """In every partition too, also in those that are made later: each takes it over from its parent."""
    connection = await asyncpg.connect(module_database)
    try:
        await connection.execute("SELECT spine.partitions_ensure(9)")
        known = await connection.fetchval("SELECT enumvals FROM pg_settings WHERE name = 'default_toast_compression'")
        ways = await connection.fetch(
            "SELECT DISTINCT a.attcompression FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid "
            "WHERE c.relnamespace = 'spine'::regnamespace AND c.relkind IN ('r', 'p') AND a.attname = 'body' "
            "AND c.relname SIMILAR TO '(events|idempotency_keys)%'"
        )
    finally:
        await connection.close()
    assert {row["attcompression"] for row in ways} == ({b"l"} if "lz4" in known else {b"\0"})
