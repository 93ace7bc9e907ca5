"""Errors of the database: their SQLSTATE, the violated constraint, and the API's error for them."""

from typing import Any, Final

import asyncpg
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from spine.kernel.errors import SpineError, TooManyRequests, Unavailable, Unprocessable

RETRYABLE: Final = {"40001", "40P01"}
"""SQLSTATEs of a serialisation failure and of a deadlock: the transaction is tried once more."""
_NUL: Final = {"22021", "22P05"}
LOCK_TIMEOUT: Final = "55P03"
_QUOTA_EXCEEDED: Final = "SP429"
"""Raised by `spine.quota_add`: its message says which quota, its detail in how many seconds the period ends."""
# A lost connection, a server that stops or is out of resources, a statement timeout, a read-only standby.
_UNAVAILABLE: Final = ("08", "57P", "53", "57014", "25P03", "25006")


def sqlstate(error: BaseException) -> str:
    """Return the SQLSTATE of a database error, or an empty text."""
    if isinstance(error, DBAPIError):
        return str(getattr(error.orig, "sqlstate", None) or "")
    return str(getattr(error, "sqlstate", None) or "")


def constraint(error: DBAPIError) -> str:
    """Return the name of the violated constraint, or an empty text."""
    cause = getattr(error.orig, "__cause__", None)
    return str(getattr(cause, "constraint_name", None) or "")


def to_spine_error(error: Exception) -> SpineError | None:
    """Return the API error for a database error, or None if the cause is a bug of ours."""
    state = sqlstate(error)
    if state in _NUL:
        return Unprocessable("texts must not hold the character U+0000", code="invalid_character")
    if state == _QUOTA_EXCEEDED:
        cause: Any = getattr(getattr(error, "orig", error), "__cause__", None) or error
        return TooManyRequests(cause.message, retry_after_s=int(cause.detail), code="quota_exceeded")
    if state in RETRYABLE or state == LOCK_TIMEOUT or state.startswith(_UNAVAILABLE):
        return Unavailable()
    if isinstance(getattr(getattr(error, "orig", error), "__cause__", None) or error, ValueError):
        return None  # the parameter does not fit its column: our models should have refused it
    if isinstance(
        error, (PoolTimeout, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, InterfaceError)
    ) or (isinstance(error, OperationalError) and not state):
        return Unavailable()
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return Unavailable()
    return None
