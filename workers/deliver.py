"""Claims: leases what is due and what is parked behind lanes with room, and loads it into the lanes."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import asyncpg

from spine.settings import WorkSettings
from spine.webhooks import queries
from workers.cargo import Cargo, EndpointFacts, Result, Stopped, Way
from workers.desk import Desk
from workers.lanes import Lane, Lanes

_CLAIM_MAX: Final = 1000
_FOUND_MAX: Final = 256


class Claims:
    """Leases rows, one round trip a batch. `record` takes those that end here, `turn` those that go another way."""

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        lanes: Lanes,
        work: WorkSettings,
        worker_id: str,
        record: Callable[[Result], None],
        turn: Callable[[Cargo, Way], None],
        pump: Callable[[Lane], None],
    ) -> None:
        self._desk = Desk(pool, eager=True)
        self._lanes = lanes
        self._lease = timedelta(seconds=work.lease_s)
        self._worker_id = worker_id
        self._record = record
        self._turn = turn
        self._pump = pump
        self._found_up_to = ""

    async def close(self) -> None:
        """Give the connection back."""
        await self._desk.close()

    async def claim_due(self) -> bool:
        """Lease what is due; answers whether there may be more."""
        wanted = min(self._lanes.room(), _CLAIM_MAX)
        if wanted <= 0:
            return False
        rows, lease_ends_s = await self._claim(wanted, queries.DUE_CLAIM, wanted)
        self._load(rows, lease_ends_s)
        return len(rows) == wanted

    async def claim_parked(self) -> bool:
        """Lease what is parked behind lanes that have drained to half; answers whether any were."""
        wanting = self._lanes.wanting(time.monotonic())
        room = self._lanes.room()
        if not wanting or room <= 0:
            return False
        asked: dict[str, tuple[Lane, int]] = {}
        for lane, wanted in wanting:
            if room > 0:
                asked[lane.facts.id] = (lane, min(wanted, room))
                room -= wanted
        total = sum(wanted for _, wanted in asked.values())
        rows, lease_ends_s = await self._claim(
            total, queries.PARKED_CLAIM, list(asked), [wanted for _, wanted in asked.values()]
        )
        came = dict.fromkeys(asked, 0)
        for row in rows:
            came[row["endpoint_id"]] += 1
        for id, (lane, wanted) in asked.items():
            lane.parked = came[id] == wanted
        self._load(rows, lease_ends_s)
        return bool(rows)

    async def find_parked(self) -> bool:
        """See behind which lanes rows are parked, some lanes a time; answers whether any of them is ours to serve.

        Another worker may have parked them, or one that is dead by now.
        """
        async with self._desk.connection() as connection:
            rows = await connection.fetch(queries.PARKED_FIND, self._found_up_to, _FOUND_MAX)
        self._found_up_to = rows[-1]["endpoint_id"] if len(rows) == _FOUND_MAX else ""
        now_s = time.monotonic()
        ours = False
        for row in rows:
            lane = self._lanes.lane(EndpointFacts.read(row))
            lane.parked = lane.share > 0
            ours = ours or (lane.share > 0 and self._lanes.drained(lane, now_s))
        return ours

    async def _claim(self, promised: int, query: str, *args: Any) -> tuple[list[Any], float]:
        self._lanes.promise(promised)
        try:
            async with self._desk.connection() as connection:
                lease_ends_s = time.monotonic() + self._lease.total_seconds()
                return await connection.fetch(query, self._worker_id, self._lease, *args), lease_ends_s
        finally:
            self._lanes.promise(-promised)

    def _load(self, rows: list[Any], lease_ends_s: float) -> None:
        now_s = time.monotonic()
        lanes: dict[Lane, None] = {}
        for row in rows:
            cargo = Cargo(
                row["workspace_id"], row["id"], row["event_id"], row["type"], row["endpoint_id"], row["failures"], row["series"],
                row["replay_id"], row["accepted_at"], row["body"] or b"", lease_ends_s, row["due_at"],
            )  # fmt: skip
            reason = _end(row)
            if reason is not None:
                self._record(Stopped(cargo, reason))
            elif row["disabled"]:
                self._turn(cargo, Way.HELD)
            else:
                facts = EndpointFacts.read(row)
                way = self._lanes.reserve(facts, now_s)
                if way is Way.LEASED:
                    lanes[self._lanes.load(facts, cargo, now_s)] = None
                else:
                    self._turn(cargo, way)
        for lane in lanes:
            self._pump(lane)


def _end(row: Any) -> str | None:
    """Why a delivery can never be attempted again."""
    if row["deleted"]:
        return "endpoint_deleted"
    if row["expired"]:
        return "expired"
    if row["body"] is None:
        return "payload_erased"
    return None
