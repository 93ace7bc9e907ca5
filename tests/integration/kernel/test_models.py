"""The row classes and the tables of the migrations agree."""

import asyncpg
from sqlalchemy.dialects import postgresql

import products.catalogue  # noqa: F401  # imports every module that declares row classes
from spine.kernel.resource import Row
from spine.kernel.test_clock import TIME_COLUMNS

UNMOVED = {
    "created_at": "creation of the row",
    "updated_at": "last change of the row",
    "accepted_at": "acceptance of an event or, by a provider, of a message",
    "started_at": "start",
    "ended_at": "end",
    "email_confirmed_at": "confirmation of an address",
    "failed_at": "failure",
    "polled_at": "question to a provider",
    "degraded_until": "judgement of real receipts, which a test clock does not bring",
    "next_call_at": "pace of an account's calls, which a test clock does not make faster",
    "left_at": "change from an attempt to the next one",
    "delivered_at": "delivery",
    "read_at": "read receipt",
    "sent_at": "sent receipt",
    "taken_at": "acceptance by the sandbox",
    "received_at": "arrival of a receipt",
    "look_at": "next look at a parked receipt; follows from its arrival",
    "at": "writing of a timeline entry",
    "seen_at": "last heartbeat of a worker",
    "leased_until": "end of a worker's lease of maintenance",
    "closed_at": "end of a delivery",
    "disabled_at": "disabling",
    "deleted_at": "deletion",
    "erased_at": "erasure",
    "last_used_at": "last use",
    "discard_before": "end of what is discarded; compared with times of events, which are not moved either",
    "starts_at": "start of a slot as callers see it; rules compare `bookable_until` and `begins_at`",
    "ends_at": "end of a slot, likewise",
    "window_from": "start of the time that a waiting person wants; compared with times of slots, which are not moved either",
    "window_to": "end of it, likewise",
    "resolved_at": "resolution of a ticket",
    "sla_breached_at": "breach of a ticket's service level",
    "tasks.due_at": "due time of a task as callers see it; its job is moved",
    "milestones.due_at": "due time of a milestone as callers see it; no rule compares it",
    "overdue_at": "passing of a task's due time",
    "completed_at": "completion of a task",
    "reached_at": "reaching of a milestone",
    "voided_at": "voiding of an invoice",
    "valid_from": "start of a subscription; compared with times of events, which are not moved either",
    "valid_to": "end of a subscription, likewise",
}
"""Columns that record when something happened, by name or by table and name. The test clock does not move them."""

PARTLY_MODELLED = {"messages", "attempts"}
"""Tables with their own SQL; their row classes contain only the columns that the generic store needs."""
COLUMNS = """
    SELECT c.relname AS table, a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS required
      FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
     WHERE c.relnamespace = 'spine'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
       AND a.attnum > 0 AND NOT a.attisdropped
"""


async def test_models_equal_migrations(database: str) -> None:
    """Row classes and database have the same columns, with the same types and nullability."""
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
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # the library has no type for it
    declared = {
        (table.name, column.name, column.type.compile(dialect).lower().partition(" collate")[0], bool(column.nullable))
        for table in Row.metadata.tables.values()
        for column in table.columns
    }
    assert sorted(declared - migrated) == []
    assert sorted(column for column in migrated - declared if column[0] not in PARTLY_MODELLED) == []


async def test_the_test_clock_covers_every_time_column(module_database: str) -> None:
    """The test clock moves each timestamptz column, except those that record a past event (wire.md)."""
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
    unknown = {(table, column) for table, column in times - moved if not {column, f"{table}.{column}"} & UNMOVED.keys()}
    assert sorted(unknown) == []


async def test_payloads_are_compressed_with_lz4_if_supported(module_database: str) -> None:
    """Every partition, also one created later, inherits lz4 from its parent."""
    connection = await asyncpg.connect(module_database)
    try:
        await connection.execute("SELECT spine.partitions_ensure(9)")
        methods = await connection.fetchval("SELECT enumvals FROM pg_settings WHERE name = 'default_toast_compression'")
        compressions = await connection.fetch(
            "SELECT DISTINCT a.attcompression FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid "
            "WHERE c.relnamespace = 'spine'::regnamespace AND c.relkind IN ('r', 'p') AND a.attname = 'body' "
            "AND c.relname SIMILAR TO '(events|idempotency_keys)%'"
        )
    finally:
        await connection.close()
    assert {row["attcompression"] for row in compressions} == ({b"l"} if "lz4" in methods else {b"\0"})
