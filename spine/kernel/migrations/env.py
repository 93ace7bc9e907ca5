"""Alembic environment: runs the revisions on the asyncpg connection that `spine.kernel.database.migrate` passes."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(
    connection=connection, target_metadata=None, version_table_schema="public", transaction_per_migration=True
)
with context.begin_transaction():
    context.run_migrations()
