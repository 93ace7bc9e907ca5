"""The ground floor: the platform, the ledger and the engine's nouns."""

__version__ = "0.1.0"
