"""What an error of the database says about a second try: wait for the server, try again, or it will fail again."""

from typing import Final

import asyncpg

_OUTAGE: Final = ("08", "53", "57P", "58", "25006", "25P03")
"""SQLSTATEs: no connection, out of resources, the server stops or starts, input or output, a standby, an idle transaction."""
_CONFLICT: Final = ("40", "55P03")
"""Deadlock or serialisation failure; a lock that another transaction did not release in time."""
_SCHEMA: Final = ("42", "0A")
"""The statement does not fit the schema or the rights, whatever its values are: a migration is under way, for example."""


def _sqlstate(error: BaseException) -> str:
    return str(getattr(error, "sqlstate", None) or "")


def is_outage(error: BaseException) -> bool:
    """Whether no work can be written at present, so that the error says nothing about this work."""
    if isinstance(error, OSError | asyncpg.InterfaceError | asyncpg.InternalClientError):
        return True
    return _sqlstate(error).startswith(_OUTAGE)


def is_conflict(error: BaseException) -> bool:
    """Whether another transaction was in the way."""
    return _sqlstate(error).startswith(_CONFLICT)


def is_timeout(error: BaseException) -> bool:
    """Whether the statement took longer than it may."""
    return isinstance(error, asyncpg.QueryCanceledError)


def is_refusal(error: BaseException) -> bool:
    """Whether these values were refused, so that the same write fails again: a value that no column takes, or a bug of ours."""
    return not (is_outage(error) or is_conflict(error) or is_timeout(error) or _sqlstate(error).startswith(_SCHEMA))
