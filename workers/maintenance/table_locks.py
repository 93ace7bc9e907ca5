"""Statements that lock a whole table: they wait for the lock so briefly that nobody waits long behind them, and try again."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import asyncpg

_TRIES: Final = 20
_PAUSE_S: Final = 0.2

T = TypeVar("T")


async def retry_lock(run: Callable[..., Awaitable[T]], statement: str, *args: object) -> T:
    """Run the statement until the lock is free. Raises LockNotAvailableError if it is not free for some seconds: the task runs again later.

    The SQL function itself bounds each wait to 50 ms. Between two tries everybody who waited behind it goes first.
    """
    for _ in range(_TRIES - 1):
        try:
            return await run(statement, *args)
        except asyncpg.LockNotAvailableError:
            await asyncio.sleep(_PAUSE_S * random.uniform(0.5, 1.5))  # noqa: S311  # not a secret
    return await run(statement, *args)
