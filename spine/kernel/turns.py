"""Turns of an event loop: a long calculation lets others go on in between."""

import asyncio
import time
from typing import Final

_WORK_S: Final = 0.01


async def next_turn() -> None:
    """Give the other tasks of the event loop one turn."""
    await asyncio.sleep(0)


class Turns:
    """Gives the other tasks of the event loop a turn after each 10 ms of work."""

    def __init__(self) -> None:
        self._since_s = time.perf_counter()

    async def give(self) -> None:
        """Return at once, or after the others' turn if 10 ms have passed since their last."""
        if time.perf_counter() - self._since_s > _WORK_S:
            await next_turn()
            self._since_s = time.perf_counter()
