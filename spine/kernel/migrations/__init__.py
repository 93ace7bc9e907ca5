"""Alembic migrations: one revision per change of the schema. `python -m spine.migrations` runs them."""
