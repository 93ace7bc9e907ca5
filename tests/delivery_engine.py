"""The delivery engine under test: a database with workspaces and endpoints made by SQL, and worker processes."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import asyncpg
import orjson
from pydantic import SecretStr

from spine.kernel import ids
from spine.kernel.settings import DatabaseSettings, EgressSettings, VaultSettings, WakeupSettings, WorkSettings
from spine.kernel.vault import Vault
from spine.webhooks.signing import new_secret
from workers.maintenance import Maintenance
from workers.pipeline import WakeupStatus
from workers.runtime import Runtime
from workers.webhooks.dispatch import Dispatcher
from workers.webhooks.replay import ReplayRunner

ROOT = Path(__file__).parent.parent
KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint that was made for a test."""

    id: str
    path: str
    secret: str


class Engine:
    """One workspace of a database, seen as its owner sees it, with the means to put events in and look at what became of them."""

    def __init__(self, url: str, redis_url: str, pool: Any) -> None:
        self.url = url
        self.redis_url = redis_url
        self.pool = pool
        self.workspace_id = ids.mint("wsp")
        self._workers: list[subprocess.Popen[bytes]] = []

    async def found(self, env: str = "test") -> None:
        """Make the workspace."""
        org = ids.mint("org")
        await self.pool.execute(
            "INSERT INTO spine.organisations (id, name, email) VALUES ($1, 'Test', 'a@example.com')", org
        )
        await self.pool.execute(
            "INSERT INTO spine.workspaces (workspace_id, organisation_id, env) VALUES ($1, $2, $3)",
            self.workspace_id,
            org,
            env,
        )

    async def endpoint(
        self, url: str, patterns: Sequence[str] = ("*",), filter: Any = None, **columns: Any
    ) -> Endpoint:
        """Make an endpoint that listens from now on."""
        id, secret = ids.mint("whe"), new_secret()
        values = {"max_in_flight": 20, "filter": None if filter is None else orjson.dumps(filter).decode(), **columns}
        names = "".join(f", {name}" for name in values)
        places = "".join(f", ${n}" for n in range(5, 5 + len(values)))
        async with self.pool.acquire() as connection, connection.transaction():
            await connection.execute(
                f"INSERT INTO spine.webhook_endpoints (workspace_id, id, url, events{names}) VALUES ($1, $2, $3, $4{places})",
                self.workspace_id,
                id,
                url,
                list(patterns),
                *values.values(),
            )
            await connection.execute(
                "INSERT INTO spine.endpoint_secrets (workspace_id, endpoint_id, secret) VALUES ($1, $2, $3)",
                self.workspace_id,
                id,
                Vault.from_text(KEY).seal(secret.encode()),
            )
            await connection.executemany(
                "INSERT INTO spine.subscriptions (workspace_id, endpoint_id, pattern, filter) VALUES ($1, $2, $3, $4)",
                [(self.workspace_id, id, pattern, values["filter"]) for pattern in patterns],
            )
        return Endpoint(id, "/" + url.partition("://")[2].partition("/")[2], secret)

    async def publish(self, type: str = "thing.happened", count: int = 1, data: Any = None) -> list[str]:
        """Accept events, in one transaction, as the API does; answers their ids."""
        made = [ids.mint("evt") for _ in range(count)]
        bodies = [
            orjson.dumps({"id": id, "type": type, "data": data if data is not None else {"n": n}})
            for n, id in enumerate(made)
        ]
        async with self.pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT set_config('app.ws', $1, true)", self.workspace_id)
            await connection.execute(
                "SELECT spine.events_put($1::text[], $2::text[], $3::bytea[])", made, [type] * count, bodies
            )
        return made

    async def deliveries(self, **where: Any) -> list[Any]:
        """Deliveries as they stand, the oldest first."""
        conditions = "".join(f" AND {name} = ${n}" for n, name in enumerate(where, 2))
        return list(
            await self.pool.fetch(
                f"SELECT * FROM spine.deliveries WHERE workspace_id = $1{conditions} ORDER BY id",
                self.workspace_id,
                *where.values(),
            )
        )

    async def until(self, true: Callable[[], Awaitable[Any]], timeout_s: float = 40) -> Any:
        """Wait until something holds in the database; answers it."""
        until_s = time.monotonic() + timeout_s
        while True:
            found = await true()
            if found:
                return found
            if time.monotonic() > until_s:
                raise TimeoutError(f"never held; deliveries: {[dict(row) for row in (await self.deliveries())[:5]]}")
            await asyncio.sleep(0.05)

    async def until_states(self, timeout_s: float = 40, **states: int) -> list[Any]:
        """Wait until so many deliveries are in these states, and no others in any other."""

        async def settled() -> list[Any]:
            rows = await self.deliveries()
            found = {state: sum(row["state"] == state for row in rows) for state in {row["state"] for row in rows}}
            return rows if found == {state: count for state, count in states.items() if count} else []

        return list(await self.until(settled, timeout_s))

    async def advance(self, seconds: float) -> None:
        """Bring what waits forward, as the test clock does."""
        await self.pool.execute(
            "UPDATE spine.deliveries_open SET due_at = due_at - make_interval(secs => $2) "
            "WHERE workspace_id = $1 AND leased_by IS NULL AND due_at < 'infinity'",
            self.workspace_id,
            float(seconds),
        )

    @asynccontextmanager
    async def at_work(self, **settings: Any) -> AsyncIterator[Runtime]:
        """A worker inside this process: the same runtime as behind the front door, woken by its sweeps."""
        work = {"metrics_port": 0, "sweep_s": 0.1, "lease_s": 5, "drain_s": 5} | settings
        runtime = Runtime(
            database=DatabaseSettings(DATABASE_URL=self.url, database_pool_size=12),
            wakeup_settings=WakeupSettings(REDIS_URL=self.redis_url),
            work=WorkSettings(**work),
            http_client=EgressSettings(egress_allow=(IPv4Network("127.0.0.0/8"),)),
            vault=VaultSettings(encryption_key=SecretStr(KEY)),
            wakeup_status=WakeupStatus(),
            pipelines=(Dispatcher, ReplayRunner, Maintenance),
        )
        await runtime.start()
        try:
            yield runtime
        finally:
            await runtime.stop()

    def start_worker(self, **settings: Any) -> "subprocess.Popen[bytes]":
        """Start a worker process with the product's own command."""
        env = os.environ | {
            "DATABASE_URL": self.url,
            "REDIS_URL": self.redis_url,
            "SPINE_ENCRYPTION_KEY": KEY,
            "SPINE_EGRESS_ALLOW": "127.0.0.0/8",
            "SPINE_METRICS_PORT": "0",
            "SPINE_DATABASE_POOL_SIZE": "10",
            "SPINE_SWEEP_S": "1",
            "SPINE_LEASE_S": "5",
        }
        env |= {f"SPINE_{name.upper()}": str(value) for name, value in settings.items()}
        worker = subprocess.Popen([sys.executable, "-m", "arq", "workers.main.WorkerSettings"], cwd=ROOT, env=env)
        self._workers.append(worker)
        return worker

    async def worker(self, **settings: Any) -> "subprocess.Popen[bytes]":
        """Start a worker process and wait until it is on the roster."""
        before = await self.pool.fetchval("SELECT count(*) FROM spine.workers")
        worker = self.start_worker(**settings)

        async def there() -> Any:
            if worker.poll() is not None:
                raise RuntimeError("the worker ended at once")
            return await self.pool.fetchval("SELECT count(*) > $1 FROM spine.workers", before)

        await self.until(there)
        return worker

    @property
    def alive(self) -> "list[subprocess.Popen[bytes]]":
        """The worker processes that run."""
        return [worker for worker in self._workers if worker.poll() is None]

    async def stop(self, worker: "subprocess.Popen[bytes]", signum: int = signal.SIGTERM) -> int:
        """End a worker; answers its exit status."""
        worker.send_signal(signum)
        return await asyncio.to_thread(worker.wait, 60)

    async def close(self) -> None:
        """End every worker."""
        for worker in self._workers:
            if worker.poll() is None:
                worker.terminate()
        for worker in self._workers:
            try:
                await asyncio.to_thread(worker.wait, 20)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()


@asynccontextmanager
async def running_engine(url: str, redis_url: str) -> AsyncIterator[Engine]:
    """An engine with one workspace, and no worker yet."""
    owner = await asyncpg.create_pool(url, min_size=1, max_size=6, init=_json)
    engine = Engine(url, redis_url, owner)
    try:
        await engine.found()
        yield engine
    finally:
        await engine.close()
        owner.terminate()


async def _json(connection: Any) -> None:
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=lambda value: orjson.dumps(value).decode(), decoder=orjson.loads
    )
