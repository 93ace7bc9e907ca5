"""Renews the leases of the deliveries that this process holds, and releases leases."""

import time
from datetime import timedelta
from typing import Final

import asyncpg

from spine.kernel.wakeups import Wakeups
from spine.webhooks import queries
from workers.connection import Connection, DedicatedConnection
from workers.webhooks.endpoint_queues import EndpointQueues
from workers.webhooks.jobs import DeliveryJob, Placement

_RENEW_BELOW: Final = 0.7
"""A lease is renewed if less than this part of it is left. `renew` runs three times per lease."""


class Leases:
    """The leases of this process. `release` collects jobs in memory, and `flush` writes them to Postgres."""

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        queues: EndpointQueues,
        wakeups: Wakeups,
        worker_id: str,
        lease_s: float,
    ) -> None:
        self._db = DedicatedConnection(pool, async_commit=True)
        self._queues = queues
        self._wakeups = wakeups
        self._worker_id = worker_id
        self._lease_s = lease_s
        self._released: list[tuple[DeliveryJob, Placement]] = []

    async def close(self) -> None:
        """Return the connection to the pool."""
        await self._db.close()

    def release(self, job: DeliveryJob, placement: Placement) -> None:
        """Release a delivery. This process forgets it at once; Postgres gets the placement at the next `flush`."""
        self._queues.release(job)
        self._released.append((job, placement))

    async def flush(self) -> None:
        """Write the released deliveries. If that raises, the next flush writes those that are not written."""
        released, self._released = self._released, []
        if not released:
            return
        left = released
        try:
            async with self._db.connection() as connection:
                missed = await self._write(connection, left)
                while missed:
                    left = missed
                    missed = await self._write(connection, left)
                    if len(missed) == len(left):
                        break
        except BaseException:
            self._released = left + self._released
            raise
        if any(placement is Placement.DUE for _, placement in released):
            self._wakeups.wake("deliver")

    async def _write(
        self, connection: Connection, released: list[tuple[DeliveryJob, Placement]]
    ) -> list[tuple[DeliveryJob, Placement]]:
        """Write a batch. Returns the missed rows: a renewal wrote them concurrently, or this process lost their lease.

        Only missed rows may be written again. This process may have claimed another row of the batch again by then, and
        would release it while it sends it.
        """
        rows = await connection.fetch(
            queries.LEASES_RELEASE,
            [job.workspace_id for job, _ in released],
            [job.id for job, _ in released],
            [int(placement) for _, placement in released],
            self._worker_id,
        )
        written = {row["id"] for row in rows}
        return [one for one in released if one[0].id not in written]

    async def renew(self) -> None:
        """Renew the leases that have little time left, and mark those that this process has lost."""
        now_s = time.monotonic()
        expiring = [job for job in self._queues.jobs if job.lease_ends_s - now_s < _RENEW_BELOW * self._lease_s]
        if not expiring:
            return
        async with self._db.connection() as connection:
            rows = await connection.fetch(
                queries.LEASES_RENEW,
                self._worker_id,
                [job.workspace_id for job in expiring],
                [job.id for job in expiring],
                timedelta(seconds=self._lease_s),
            )
        renewed = {row["id"] for row in rows}
        for job in expiring:
            if job.id in renewed:
                job.lease_ends_s = now_s + self._lease_s
            else:
                job.lease_ends_s = 0.0  # the sender skips the job; a call in flight ends and is recorded
