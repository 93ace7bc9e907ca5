"""The delivery engine under test: a database with workspaces and endpoints created by SQL, and worker processes."""

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
from spine.webhooks.endpoint_store import secret_place
from spine.webhooks.signing import new_secret
from workers.maintenance import Maintenance
from workers.pipeline import WakeupStatus
from workers.runtime import Runtime
from workers.webhooks.dispatch import Dispatcher
from workers.webhooks.endpoint_transitions import EndpointTransitions
from workers.webhooks.replay import ReplayRunner

ROOT = Path(__file__).parent.parent
KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint that a test has created."""

    id: str
    path: str
    secret: str


class Engine:
    """One workspace of a database, with access as the database owner, to publish events and read their deliveries."""

    def __init__(self, url: str, redis_url: str, pool: Any) -> None:
        self.url = url
        self.redis_url = redis_url
        self.pool = pool
        self.workspace_id = ids.mint("wsp")
        self._workers: list[subprocess.Popen[bytes]] = []

    async def create_workspace(self, env: str = "test") -> None:
        """Insert the workspace and its organisation."""
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
        """Create an endpoint that is subscribed from now on. `columns` are set on its row."""
        id, secret = ids.mint("whe"), new_secret()
        values = {"max_in_flight": 20, "filter": None if filter is None else orjson.dumps(filter).decode(), **columns}
        names = "".join(f", {name}" for name in values)
        parameters = "".join(f", ${n}" for n in range(5, 5 + len(values)))
        async with self.pool.acquire() as connection, connection.transaction():
            await connection.execute(
                f"INSERT INTO spine.webhook_endpoints (workspace_id, id, url, events{names}) VALUES ($1, $2, $3, $4{parameters})",
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
                Vault.from_text(KEY).seal(secret.encode(), secret_place(self.workspace_id, id)),
            )
            await connection.executemany(
                "INSERT INTO spine.subscriptions (workspace_id, endpoint_id, pattern, filter) VALUES ($1, $2, $3, $4)",
                [(self.workspace_id, id, pattern, values["filter"]) for pattern in patterns],
            )
        return Endpoint(id, "/" + url.partition("://")[2].partition("/")[2], secret)

    async def publish(self, type: str = "thing.happened", count: int = 1, data: Any = None) -> list[str]:
        """Accept events in one transaction, as the API does. Returns their ids."""
        event_ids = [ids.mint("evt") for _ in range(count)]
        bodies = [
            orjson.dumps({"id": id, "type": type, "data": data if data is not None else {"n": n}})
            for n, id in enumerate(event_ids)
        ]
        async with self.pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT set_config('app.ws', $1, true)", self.workspace_id)
            await connection.execute(
                "SELECT spine.events_put($1::text[], $2::text[], $3::bytea[])", event_ids, [type] * count, bodies
            )
        return event_ids

    async def deliveries(self, **columns: Any) -> list[Any]:
        """The deliveries with these column values, the oldest first."""
        conditions = "".join(f" AND {name} = ${n}" for n, name in enumerate(columns, 2))
        return list(
            await self.pool.fetch(
                f"SELECT * FROM spine.deliveries WHERE workspace_id = $1{conditions} ORDER BY id",
                self.workspace_id,
                *columns.values(),
            )
        )

    async def until(self, condition: Callable[[], Awaitable[Any]], timeout_s: float = 40) -> Any:
        """Wait until the condition returns a true value, and return it. Raises TimeoutError."""
        until_s = time.monotonic() + timeout_s
        while True:
            found = await condition()
            if found:
                return found
            if time.monotonic() > until_s:
                raise TimeoutError(
                    f"the condition is still false; deliveries: {[dict(row) for row in (await self.deliveries())[:5]]}"
                )
            await asyncio.sleep(0.05)

    async def until_states(self, timeout_s: float = 40, **states: int) -> list[Any]:
        """Wait until exactly these numbers of deliveries are in these states. Returns their rows."""

        async def settled() -> list[Any]:
            rows = await self.deliveries()
            found = {state: sum(row["state"] == state for row in rows) for state in {row["state"] for row in rows}}
            return rows if found == {state: count for state, count in states.items() if count} else []

        return list(await self.until(settled, timeout_s))

    async def advance(self, seconds: float) -> None:
        """Move the due times of waiting deliveries back, as the test clock does."""
        await self.pool.execute(
            "UPDATE spine.deliveries_open SET due_at = due_at - make_interval(secs => $2) "
            "WHERE workspace_id = $1 AND leased_by IS NULL AND due_at < 'infinity'",
            self.workspace_id,
            float(seconds),
        )

    @asynccontextmanager
    async def running_worker(self, **settings: Any) -> AsyncIterator[Runtime]:
        """Run a worker in this process. Its runtime is that of the product; it gets no wakeups, but sweeps often."""
        work = {"metrics_port": 0, "sweep_s": 0.1, "lease_s": 5, "drain_s": 5} | settings
        runtime = Runtime(
            database=DatabaseSettings(DATABASE_URL=self.url, database_pool_size=12),
            wakeup_settings=WakeupSettings(REDIS_URL=self.redis_url),
            work=WorkSettings(**work),
            egress=EgressSettings(egress_allow=(IPv4Network("127.0.0.0/8"),)),
            vault=VaultSettings(encryption_key=SecretStr(KEY)),
            public_url="http://127.0.0.1:8080",
            wakeup_status=WakeupStatus(),
            pipelines=(Dispatcher, EndpointTransitions, ReplayRunner, Maintenance),
        )
        await runtime.start()
        try:
            yield runtime
        finally:
            await runtime.stop()

    def start_worker(self, **settings: Any) -> "subprocess.Popen[bytes]":
        """Start a worker process with the command of the product."""
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
        """Start a worker process and wait for its first heartbeat."""
        before = await self.pool.fetchval("SELECT count(*) FROM spine.workers")
        worker = self.start_worker(**settings)

        async def has_started() -> Any:
            if worker.poll() is not None:
                raise RuntimeError("the worker ended at once")
            return await self.pool.fetchval("SELECT count(*) > $1 FROM spine.workers", before)

        await self.until(has_started)
        return worker

    @property
    def alive(self) -> "list[subprocess.Popen[bytes]]":
        """The worker processes that are running."""
        return [worker for worker in self._workers if worker.poll() is None]

    async def stop(self, worker: "subprocess.Popen[bytes]", signum: int = signal.SIGTERM) -> int:
        """Signal a worker and wait for its end. Returns its exit status."""
        worker.send_signal(signum)
        return await asyncio.to_thread(worker.wait, 60)

    async def close(self) -> None:
        """Stop every worker."""
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
    """An engine with one workspace and no worker."""
    owner = await asyncpg.create_pool(url, min_size=1, max_size=6, init=_json)
    engine = Engine(url, redis_url, owner)
    try:
        await engine.create_workspace()
        yield engine
    finally:
        await engine.close()
        owner.terminate()


async def _json(connection: Any) -> None:
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=lambda value: orjson.dumps(value).decode(), decoder=orjson.loads
    )
