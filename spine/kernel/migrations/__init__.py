"""The database's history: one revision per change, run by `python -m spine.migrations`."""
