"""The environment of a measurement: a database with a worker and the API, a receiver, the bare client, and the scale."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg

from bench.database import Database, Workspace
from bench.installation import Installation, wait_until
from bench.load import Load
from bench.process import Process
from bench.receivers import BareClient, Receiver
from bench.reconciliation import reconcile
from bench.results import Results

CONNECTIONS = 32


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes and durations of the measurements. A quick run has wider error bars."""

    rounds: int
    drain_events: int
    """Events of one drained backlog."""
    accept_s: float
    first_byte_s: float
    isolation_s: float
    backlog: int
    sample_size: int
    """Deliveries of a backlog over which a rate is measured."""
    retry_s: float
    hurting_rows: int
    """Events or deliveries of the workspace that hurts its neighbour."""


QUICK = Scale(
    rounds=2,
    drain_events=5_000,
    accept_s=0.7,
    first_byte_s=4,
    isolation_s=0.7,
    backlog=100_000,
    sample_size=5_000,
    retry_s=3,
    hurting_rows=40_000,
)
FULL = Scale(
    rounds=5,
    drain_events=30_000,
    accept_s=4,
    first_byte_s=30,
    isolation_s=20,
    backlog=1_000_000,
    sample_size=9_000,
    retry_s=20,
    hurting_rows=300_000,
)


@dataclass
class Environment:
    """The argument of every measurement, which leaves the database empty and the processes idle."""

    installation: Installation
    database: Database
    worker: Process
    api_port: int
    receiver: Receiver
    bare_client: BareClient
    scale: Scale
    results: Results

    def load(self, connections: int = CONNECTIONS) -> Load:
        """Return a load generator with this number of connections to the API."""
        return Load("127.0.0.1", self.api_port, connections)

    async def wait_received(self, count: int, within_s: float = 300, *, receiver: Receiver | None = None) -> None:
        """Wait until the receiver has `count` different deliveries."""
        source = receiver or self.receiver

        async def is_complete() -> bool:
            return await source.first() >= count

        await wait_until(is_complete, within_s=within_s)

    async def wait_drained(self, database: Database | None = None, within_s: float = 300) -> None:
        """Wait until every result is committed."""
        await wait_until((database or self.database).is_drained, within_s=within_s, every_s=0.01)

    async def wait_idle(self) -> None:
        """Wait until the workers have sent the rest of an abandoned backlog, and reset the receiver."""
        before, received = -1, await self.receiver.first()
        while received > before:
            await asyncio.sleep(0.3)
            before, received = received, await self.receiver.first()
        await self.receiver.reset()

    async def reconcile(
        self,
        name: str,
        workspace: Workspace,
        *,
        fan_out: int = 1,
        database: Database | None = None,
        receiver: Receiver | None = None,
    ) -> None:
        """Reconcile a workspace and keep the result. Raises ReconciliationError if an event or delivery is missing."""
        source = receiver or self.receiver
        counts = await (database or self.database).count_deliveries(workspace)
        received, duplicates = await source.first(), await source.duplicates()
        reconciliation = reconcile(name, counts, len(workspace.accepted), fan_out, received, duplicates)
        self.results.reconciliations.append(reconciliation.require())

    async def clear(self, database: Database | None = None) -> None:
        """Empty the tables and reset the receiver."""
        await (database or self.database).clear()
        await self.receiver.reset()
        await asyncio.sleep(0.1)

    async def abandon(self) -> None:
        """Drop the work that is left over, and wait until the workers have stopped with it."""
        while True:
            try:
                await self.database.clear()
            except asyncpg.DeadlockDetectedError:  # with a worker that records results
                continue
            break
        await self.wait_idle()
        await self.clear()


@asynccontextmanager
async def open_environment(installation: Installation, scale: Scale, results: Results) -> AsyncIterator[Environment]:
    """Start the processes that most measurements need."""
    database = await installation.database("bench", 0)
    worker, api_port = await asyncio.gather(installation.worker(database), installation.api(database))
    yield Environment(
        installation, database, worker, api_port, installation.receiver(), installation.bare_client(), scale, results
    )
