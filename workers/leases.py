"""Leases: renewed while their deliveries are here, given back when these go another way."""

import time
from datetime import timedelta
from typing import Final

import asyncpg

from spine.bell import Bell
from spine.webhooks import queries
from workers.cargo import Cargo, Way
from workers.desk import Connection, Desk
from workers.lanes import Lanes

_RENEW_BELOW: Final = 0.7
"""Renewed when less than this part of the lease is left; looked at three times a lease."""


class Leases:
    """What this process has leased, and the ways back."""

    def __init__(
        self, pool: "asyncpg.Pool[asyncpg.Record]", lanes: Lanes, bell: Bell, worker_id: str, lease_s: float
    ) -> None:
        self._desk = Desk(pool, eager=True)
        self._lanes = lanes
        self._bell = bell
        self._worker_id = worker_id
        self._lease_s = lease_s
        self._turned: list[tuple[Cargo, Way]] = []

    async def close(self) -> None:
        """Give the connection back."""
        await self._desk.close()

    def turn(self, cargo: Cargo, way: Way) -> None:
        """Give a delivery back; it is no longer ours from here on, and in Postgres once `flush` ran."""
        self._lanes.leave(cargo)
        self._turned.append((cargo, way))

    async def flush(self) -> None:
        """Write what was given back."""
        turned, self._turned = self._turned, []
        if not turned:
            return
        left = turned
        try:
            async with self._desk.connection() as connection:
                missed = await self._write(connection, left)
                while missed:
                    left = missed
                    missed = await self._write(connection, left)
                    if len(missed) == len(left):
                        break
        except BaseException:
            self._turned = left + self._turned
            raise
        if any(way is Way.DUE for _, way in turned):
            self._bell.ring("deliver")

    async def _write(self, connection: Connection, turned: list[tuple[Cargo, Way]]) -> list[tuple[Cargo, Way]]:
        """Answers those that were missed: a renewal wrote them at the same moment, or they are no longer ours.

        Only these may be tried again. This process may have claimed another of the batch anew by then, and would give it
        back while it sends it.
        """
        rows = await connection.fetch(
            queries.LEASES_TURN,
            [cargo.workspace_id for cargo, _ in turned],
            [cargo.id for cargo, _ in turned],
            [int(way) for _, way in turned],
            self._worker_id,
        )
        written = {row["id"] for row in rows}
        return [one for one in turned if one[0].id not in written]

    async def renew(self) -> None:
        """Renew what was held for a while; drop what waits here and is no longer ours."""
        now_s = time.monotonic()
        ageing = [cargo for cargo in self._lanes.cargo if cargo.lease_ends_s - now_s < _RENEW_BELOW * self._lease_s]
        if not ageing:
            return
        async with self._desk.connection() as connection:
            rows = await connection.fetch(
                queries.DELIVERIES.renew,
                self._worker_id,
                [cargo.workspace_id for cargo in ageing],
                [cargo.id for cargo in ageing],
                timedelta(seconds=self._lease_s),
            )
        ours = {row["id"] for row in rows}
        for cargo in ageing:
            if cargo.id in ours:
                cargo.lease_ends_s = now_s + self._lease_s
            else:
                cargo.lease_ends_s = 0.0  # the sender passes over it; a call under way ends and is recorded
