"""A temporary installation for benchmarks: durable Postgres and Redis as `make up` runs them, API, workers, receivers."""

import asyncio
import base64
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import asyncpg

from bench.database import Database
from bench.process import ROOT, Process, start
from bench.receivers import BareClient, Receiver
from bench.usage import cpu_by_role, cpu_s
from spine.supervisor import postgres, redis
from spine.supervisor.data_directory import open_directory, remove_sockets, socket_directory
from spine.supervisor.postgres import SUPERUSER, describe_postgres, postgres_answers, postgres_command
from spine.supervisor.redis import describe_redis, redis_answers, redis_command

KEY = base64.b64encode(secrets.token_bytes(32)).decode()
_MIGRATED = "migrated"
"""The template of the other databases."""


class Installation:
    """`async with Installation(directory)` runs the servers; `database`, `worker`, `api` and the others add to them."""

    def __init__(self, directory: Path) -> None:
        shutil.rmtree(directory, ignore_errors=True)
        self._directory = open_directory(directory)

        self.roles: dict[str, list[Process]] = {}
        self._stopped_workers_s = 0.0
        self._migrated = False

    async def __aenter__(self) -> Self:
        sockets = socket_directory(self._directory)
        self._postgres = describe_postgres(self._directory, sockets)
        postgres.prepare(self._postgres)
        command = postgres_command(self._postgres)
        statistics = ("--shared_preload_libraries=pg_stat_statements", "--pg_stat_statements.max=1000")
        server = replace(command, argv=(*command.argv, *statistics))
        await self._serve("postgres", server, lambda: postgres_answers(self._postgres))
        described = describe_redis(self._directory, sockets)
        redis.remove_stale(described)
        await self._serve("redis", redis_command(described), lambda: redis_answers(described.url))
        self._redis_url = described.url
        return self

    async def __aexit__(self, *_: object) -> None:
        for role in ("worker", "api", "bare", "receiver", "redis", "postgres"):
            for process in self.roles.get(role, []):
                process.stop()

        remove_sockets(self._directory)
        shutil.rmtree(self._directory, ignore_errors=True)

    async def _serve(self, role: str, command: Any, is_ready: Callable[[], Awaitable[bool]]) -> None:
        process = Process(command, self._log(role))
        self._register(role, process)
        await wait_until(is_ready, process)

    def _log(self, name: str) -> Path:
        return self._directory / f"{name}.log"

    def _register(self, role: str, process: Process) -> Process:
        self.roles.setdefault(role, []).append(process)
        return process

    def pids(self, *roles: str) -> dict[str, list[int]]:
        """Return the process ids by role."""
        return {role: [process.pid for process in self.roles.get(role, [])] for role in roles}

    async def database(self, name: str, number: int) -> Database:
        """Create a migrated database, with the Redis database of this number."""
        if not self._migrated:
            await self._create(_MIGRATED)
            await asyncio.to_thread(self._migrate)
            self._migrated = True
        await self._create(name, _MIGRATED)
        url = self._postgres.url(name)
        return await Database.open(url, self._redis_url.replace("db=0", f"db={number}"), KEY)

    async def _create(self, name: str, template: str = "template1") -> None:
        owner = await asyncpg.connect(self._postgres.url("postgres"))
        await owner.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        await owner.close()

    def _migrate(self) -> None:
        environment = self._environment(self._postgres.url(_MIGRATED), "")
        argv = [sys.executable, "-m", "spine.migrations"]
        completed = subprocess.run(argv, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)
        if completed.returncode != 0:
            raise RuntimeError(f"the migrations failed:\n{completed.stdout}{completed.stderr}")

    def _environment(self, database_url: str, redis_url: str) -> dict[str, str]:
        return {
            "PATH": "/usr/bin:/bin",
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "SPINE_ENCRYPTION_KEY": KEY,
            "SPINE_EGRESS_ALLOW": "127.0.0.0/8",
            "SPINE_METRICS_PORT": "0",
            "SPINE_RATE_LIMIT_REQUESTS": "100000000",
        }

    async def worker(
        self, database: Database, program: str = "workers.main.WorkerSettings", **settings: str
    ) -> Process:
        """Start a worker process and wait for its first heartbeat."""
        before = await database.count_workers()
        name = f"worker-{len(self.roles.get('worker', []))}"
        argv = [sys.executable, "-m", "arq", program]
        environment = self._environment(database.url, database.redis_url) | settings
        process = start(name, argv, self._log(name), environment, grace_s=40)
        self._register("worker", process)

        async def has_heartbeat() -> bool:
            return await database.count_workers() > before

        await wait_until(has_heartbeat, process)
        return process

    def stop_worker(self, process: Process) -> None:
        """Stop a worker."""
        self._stopped_workers_s += cpu_s(process.pid)
        process.stop()
        self.roles["worker"].remove(process)

    async def api(self, database: Database, **settings: str) -> int:
        """Start an API process. Returns its port."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        environment = self._environment(database.url, database.redis_url) | settings | {"SPINE_HTTP_PORT": str(port)}
        process = start("api", [sys.executable, "-m", "products.app"], self._log("api"), environment)
        self._register("api", process)
        await wait_until(lambda: _listens(port), process)
        return port

    def receiver(self, tls: tuple[Path, Path] | None = None) -> Receiver:
        """Start a receiver process."""
        receiver = Receiver(self._log("receiver"), tls)
        self._register("receiver", receiver.process)
        return receiver

    def bare_client(self, ca_file: Path | None = None) -> BareClient:
        """Start the process of the bare client loop."""
        client = BareClient(self._log("bare"), ca_file)
        self._register("bare", client.process)
        return client

    def cpu_s(self) -> float:
        """Return the CPU seconds of all processes of the installation, of stopped workers and of this process."""
        return self._stopped_workers_s + time.process_time() + sum(cpu_by_role(self.pids(*self.roles)).values())

    @property
    def directory(self) -> Path:
        """The directory of this run, which is deleted at its end."""
        return self._directory

    def owner(self) -> str:
        """Return the database role of the benchmark. The statements of the other roles are counted."""
        return SUPERUSER


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def wait_until(
    condition: Callable[[], Awaitable[bool]],
    process: Process | None = None,
    *,
    within_s: float = 60,
    every_s: float = 0.02,
) -> None:
    """Wait until the condition is true. Raises RuntimeError if the process ends, TimeoutError after `within_s`."""
    end_s = time.monotonic() + within_s
    while not await condition():
        if process is not None:
            process.require_alive()
        if time.monotonic() > end_s:
            raise TimeoutError
        await asyncio.sleep(every_s)
