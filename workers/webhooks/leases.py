"""Leases: renewed while their deliveries are here, given back when these go another way."""

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
"""Renewed when less than this part of the lease is left; looked at three times a lease."""


class Leases:
    """What this process has leased, and the ways back."""

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
        self._bell = wakeups
        self._worker_id = worker_id
        self._lease_s = lease_s
        self._released: list[tuple[DeliveryJob, Placement]] = []

    async def close(self) -> None:
        """Give the connection back."""
        await self._db.close()

    def release(self, job: DeliveryJob, placement: Placement) -> None:
        """Give a delivery back; it is no longer ours from here on, and in Postgres once `flush` ran."""
        self._queues.release(job)
        self._released.append((job, placement))

    async def flush(self) -> None:
        """Write what was given back."""
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
            self._bell.wake("deliver")

    async def _write(
        self, connection: Connection, released: list[tuple[DeliveryJob, Placement]]
    ) -> list[tuple[DeliveryJob, Placement]]:
        """Answers those that were missed: a renewal wrote them at the same moment, or they are no longer ours.

        Only these may be tried again. This process may have claimed another of the batch anew by then, and would give it
        back while it sends it.
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
        """Renew what was held for a while; drop what waits here and is no longer ours."""
        now_s = time.monotonic()
        ageing = [job for job in self._queues.job if job.lease_ends_s - now_s < _RENEW_BELOW * self._lease_s]
        if not ageing:
            return
        async with self._db.connection() as connection:
            rows = await connection.fetch(
                queries.LEASES_RENEW,
                self._worker_id,
                [job.workspace_id for job in ageing],
                [job.id for job in ageing],
                timedelta(seconds=self._lease_s),
            )
        ours = {row["id"] for row in rows}
        for job in ageing:
            if job.id in ours:
                job.lease_ends_s = now_s + self._lease_s
            else:
                job.lease_ends_s = 0.0  # the sender passes over it; a call under way ends and is recorded
