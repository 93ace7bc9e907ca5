"""Alembic's entry: runs the revisions over asyncpg on the connection that `spine.kernel.database.migrate` hands in."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(
    connection=connection, target_metadata=None, version_table_schema="public", transaction_per_migration=True
)
with context.begin_transaction():
    context.run_migrations()
