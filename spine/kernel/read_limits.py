"""Limits of reads: each workspace uses few connections of the database at the same time, and no read takes long.

A workspace that reads a lot waits for itself. The other workspaces find free connections.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

from spine.kernel.errors import TooManyRequests
from spine.kernel.metrics import rate_limited

_WAITING_PER_SLOT: Final = 16
"""Reads of one workspace that may wait, for each read that may run. More are refused at once."""


@dataclass(slots=True)
class _Reads:
    slots: asyncio.Semaphore
    users: int = field(default=0)


class ReadLimits:
    """Lets at most `max_reads` reads of a workspace run at the same time. `timeout_s` limits each statement and each wait."""

    def __init__(self, max_reads: int, timeout_s: float) -> None:
        self._max_reads = max_reads
        self.timeout_s = timeout_s
        self._reads: dict[str, _Reads] = {}

    @contextlib.asynccontextmanager
    async def hold(self, workspace_id: str) -> AsyncIterator[None]:
        """Hold a place for one read. Raises TooManyRequests `too_many_reads` if none becomes free within `timeout_s`."""
        reads = self._reads.get(workspace_id)
        if reads is None:
            reads = self._reads[workspace_id] = _Reads(asyncio.Semaphore(self._max_reads))
        if reads.users >= self._max_reads * (1 + _WAITING_PER_SLOT):
            raise self._refusal()
        reads.users += 1
        try:
            try:
                async with asyncio.timeout(self.timeout_s):
                    await reads.slots.acquire()
            except TimeoutError as error:
                raise self._refusal() from error
            try:
                yield
            finally:
                reads.slots.release()
        finally:
            reads.users -= 1
            if not reads.users:
                del self._reads[workspace_id]

    def _refusal(self) -> TooManyRequests:
        rate_limited("reads")
        return TooManyRequests(
            f"this workspace reads more than {self._max_reads} things at the same time; read one after the other",
            retry_after_s=1,
            code="too_many_reads",
        )
