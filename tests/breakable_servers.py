"""Durable servers that a test may kill and start again."""

import asyncio
import secrets
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
from redis.asyncio import Redis

from spine.supervisor import postgres, redis
from spine.supervisor.command import Command
from spine.supervisor.data_directory import open_directory, socket_directory
from spine.supervisor.postgres import describe_postgres, postgres_answers, postgres_command
from spine.supervisor.redis import describe_redis, redis_answers, redis_command
from tests.servers import run_migrations


class BreakableServer:
    """One server process: `start`, `kill`, `start` again."""

    def __init__(
        self,
        command: Command,
        log: Path,
        answers: Callable[[], Awaitable[bool]],
        prepare: Callable[[], object],
        kill_signal: signal.Signals,
    ) -> None:
        self._command = command
        self._log = log
        self._answers = answers
        self._prepare = prepare
        self._kill_signal = kill_signal
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start the server and wait until it answers."""
        await asyncio.to_thread(self._prepare)
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: ASYNC220  # a fork is too short to need a thread
                self._command.argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, **self._command.popen()
            )
        until_s = time.monotonic() + 30
        while not await self._answers():
            if self._process.poll() is not None or time.monotonic() > until_s:
                raise RuntimeError(f"{self._command.name} did not start:\n{self._log.read_text()}")
            await asyncio.sleep(0.05)

    async def kill(self) -> None:
        """Kill the server with its kill signal."""
        if self._process is not None:
            self._process.send_signal(self._kill_signal)
            await asyncio.to_thread(self._process.wait, 30)
            self._process = None


class Servers:
    """A Postgres with one migrated database, and a Redis."""

    def __init__(self, directory: Path) -> None:
        for name in ("postgres", "redis"):
            (directory / name).mkdir()
        postgres_directory, redis_directory = (
            open_directory(directory / "postgres"),
            open_directory(directory / "redis"),
        )
        # An immediate stop (SIGQUIT) is a crash to Postgres. After SIGKILL its children would run for a while.
        postgres_server = describe_postgres(postgres_directory, socket_directory(postgres_directory), durable=True)
        self.postgres = BreakableServer(
            postgres_command(postgres_server),
            directory / "postgres.log",
            lambda: postgres_answers(postgres_server),
            lambda: postgres.prepare(postgres_server),
            signal.SIGQUIT,
        )
        redis_server = describe_redis(redis_directory, socket_directory(redis_directory), durable=True)
        self.redis = BreakableServer(
            redis_command(redis_server),
            directory / "redis.log",
            lambda: redis_answers(redis_server.url),
            lambda: redis.remove_stale(redis_server),
            signal.SIGKILL,
        )
        self._postgres_server = postgres_server
        self.redis_url = redis_server.url
        self.database_url = ""

    async def prepare(self) -> None:
        """Start both servers, and create the database."""
        await self.postgres.start()
        await self.redis.start()
        name = f"spine_{secrets.token_hex(4)}"
        owner = await asyncpg.connect(self._postgres_server.url("postgres"))
        await owner.execute(f"CREATE DATABASE {name}")
        await owner.close()
        self.database_url = self._postgres_server.url(name)
        await asyncio.to_thread(run_migrations, self.database_url)

    async def flush_redis(self) -> None:
        """Empty Redis."""
        async with Redis.from_url(self.redis_url) as client:
            await client.flushall()


@asynccontextmanager
async def breakable_servers(directory: Path) -> AsyncIterator[Servers]:
    """Run both servers until the block ends."""
    servers = Servers(directory)
    try:
        await servers.prepare()
        yield servers
    finally:
        await servers.redis.kill()
        await servers.postgres.kill()
