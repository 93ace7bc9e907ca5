"""Claims: leases what is due and what is parked behind lanes with room, and loads it into the lanes."""

import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import asyncpg

from spine.settings import WorkSettings
from spine.webhooks import queries
from workers.cargo import Cargo, EndpointFacts, Result, Stopped, Way
from workers.desk import Connection, Desk
from workers.lanes import Lane, Lanes

_CLAIM: Final = 128
"""Rows of a claim: what loads them stops everything else meanwhile, and larger ones are no cheaper a row."""
_CLAIM_PARKING: Final = 1000
"""The same where most of what is due is parked, which needs no loading: what lies behind it must not wait for ever."""
_FOUND_MAX: Final = 256
_REST: Final = 3
"""Moving rows of full lanes out of the way rests this many times as long as it took: it must not cost the lanes their pace."""


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
        self._parking = False
        self.rest_s = 0.0
        """How long to rest before the next claim of what is due: see `_REST`."""

    async def close(self) -> None:
        """Give the connection back."""
        await self._desk.close()

    async def claim_due(self) -> bool:
        """Lease what is due; answers whether there may be more."""
        async with self._desk.connection() as connection:
            wanted = min(self._lanes.room(claimed=True), _CLAIM_PARKING if self._parking else _CLAIM)
            if wanted <= 0:
                return False
            start_s = time.monotonic()
            rooms = {lane.facts.id: (lane, room) for lane, room in self._lanes.backlogged(start_s)}
            asked = {id: room for id, (_, room) in rooms.items()}
            rows = await self._claim(connection, wanted, queries.DUE_CLAIM, wanted, list(asked), list(asked.values()))
            picked, parked = rows[0]["picked"], rows[0]["parked"]
            leased = rows if rows[0]["id"] is not None else []
            if parked:
                came = Counter(row["endpoint_id"] for row in leased)
                for id, (lane, room) in rooms.items():
                    lane.parked = lane.parked or (lane.share > 0 and came[id] >= room)
            self._load(leased, start_s, asked)
        self._parking = parked * 2 > picked
        self.rest_s = (time.monotonic() - start_s) * _REST * parked / max(picked, 1)
        return bool(picked == wanted)

    async def claim_parked(self) -> bool:
        """Lease what is parked behind lanes that have drained to half; answers whether any were."""
        # What has room is asked under the lock: a claim that waits for another would ask for room that is taken by then.
        async with self._desk.connection() as connection:
            start_s = time.monotonic()
            wanting = self._lanes.wanting(start_s)
            room = self._lanes.room(claimed=True)
            if not wanting or room <= 0:
                return False
            asked: dict[str, int] = {}
            lanes: list[Lane] = []
            for lane, wanted in wanting:
                if room > 0:
                    lanes.append(lane)
                    asked[lane.facts.id] = min(wanted, room)
                    room -= wanted
            total = sum(asked.values())
            rows = await self._claim(connection, total, queries.PARKED_CLAIM, list(asked), list(asked.values()))
            came = Counter(row["endpoint_id"] for row in rows)
            for lane in lanes:
                lane.parked = came[lane.facts.id] == asked[lane.facts.id]
            self._load(rows, start_s, asked)
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

    async def _claim(self, connection: Connection, promised: int, query: str, *args: Any) -> list[Any]:
        self._lanes.promise(promised)
        try:
            return await connection.fetch(query, self._worker_id, self._lease, *args)
        finally:
            self._lanes.promise(-promised)

    def _load(self, rows: list[Any], claimed_s: float, asked: dict[str, int]) -> None:
        """Load what was leased; `asked` is how many each endpoint's lane had room for when it was asked for."""
        now_s, lease_ends_s = time.monotonic(), claimed_s + self._lease.total_seconds()
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
                left = asked.get(facts.id, 0)
                asked[facts.id] = left - 1
                way = self._lanes.reserve(facts, now_s, asked=left > 0)
                if way is Way.LEASED:
                    lanes[self._lanes.load(facts, cargo, now_s, claimed=True)] = None
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
