"""What the figures measure with: one database with a worker and the API, receivers, the bare loop; and how long to look."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bench.installation import Installation, until
from bench.load import Load
from bench.process import Process
from bench.receivers import Bare, Receiver
from bench.reconciliation import settle
from bench.results import Results
from bench.tenant import Database, Workspace

CONNECTIONS = 32


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything: a quick run has wider error bars."""

    rounds: int
    drained: int
    """Events of one drained backlog."""
    accept_s: float
    first_byte_s: float
    isolation_s: float
    backlog: int
    looked_at: int
    """Deliveries of a backlog over which a rate is taken."""
    retry_s: float


QUICK = Scale(
    rounds=2, drained=5_000, accept_s=0.7, first_byte_s=4, isolation_s=0.7, backlog=100_000, looked_at=5_000, retry_s=3
)
FULL = Scale(
    rounds=5,
    drained=30_000,
    accept_s=4,
    first_byte_s=30,
    isolation_s=20,
    backlog=1_000_000,
    looked_at=9_000,
    retry_s=20,
)


@dataclass
class Rig:
    """Handed to every figure; each leaves the database empty and the processes idle."""

    installation: Installation
    database: Database
    worker: Process
    api_port: int
    receiver: Receiver
    bare: Bare
    scale: Scale
    results: Results

    def load(self, connections: int = CONNECTIONS) -> Load:
        """Connections to the API."""
        return Load("127.0.0.1", self.api_port, connections)

    async def received(self, count: int, within_s: float = 300, *, receiver: Receiver | None = None) -> None:
        """Wait until so many different deliveries have come."""
        where = receiver or self.receiver

        async def enough() -> bool:
            return await where.first() >= count

        await until(enough, within_s=within_s)

    async def drained(self, database: Database | None = None, within_s: float = 300) -> None:
        """Wait until every result is in the ledger."""
        await until((database or self.database).is_drained, within_s=within_s, every_s=0.01)

    async def quiet(self) -> None:
        """Wait until what workers held of an abandoned backlog has come, and forget it."""
        before, came = -1, await self.receiver.first()
        while came > before:
            await asyncio.sleep(0.3)
            before, came = came, await self.receiver.first()
        await self.receiver.reset()

    async def settle(
        self,
        name: str,
        workspace: Workspace,
        *,
        fan_out: int = 1,
        database: Database | None = None,
        receiver: Receiver | None = None,
    ) -> None:
        """Close the books of a workspace; AccountError unless every id is accounted for."""
        where = receiver or self.receiver
        books = await (database or self.database).books(workspace)
        received, duplicates = await where.first(), await where.duplicates()
        account = settle(name, books, len(workspace.accepted), fan_out, received, duplicates)
        self.results.accounts.append(account.require())

    async def sweep_out(self, database: Database | None = None) -> None:
        """Empty the tables and forget what was received."""
        await (database or self.database).clear()
        await self.receiver.reset()
        await asyncio.sleep(0.1)


@asynccontextmanager
async def open_rig(installation: Installation, scale: Scale, results: Results) -> AsyncIterator[Rig]:
    """Start what most figures need."""
    database = await installation.database("bench", 0)
    worker, api_port = await asyncio.gather(installation.worker(database), installation.api(database))
    yield Rig(installation, database, worker, api_port, installation.receiver(), installation.bare(), scale, results)
