"""Writes a batch although Postgres refuses a part of it: the batch is halved until what it refuses stands alone."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from workers.database_errors import is_refusal

T = TypeVar("T")


async def write_in_parts(
    batch: Sequence[T],
    write: Callable[[Sequence[T]], Awaitable[None]],
    on_refused: Callable[[T, Exception], Awaitable[None]],
) -> None:
    """Write a batch, in parts if it is refused. `on_refused` takes each item that is refused alone. Raises other errors."""
    parts = [batch]
    while parts:
        part = parts.pop()
        try:
            await write(part)
        except Exception as error:
            if not is_refusal(error):
                raise
            middle = len(part) // 2
            if middle:
                parts += [part[middle:], part[:middle]]
            else:
                await on_refused(part[0], error)
