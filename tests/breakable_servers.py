"""Servers that a test may kill and start again, with their data still there."""

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


class Breakable:
    """One server process: `start`, `kill`, `start` again."""

    def __init__(
        self,
        command: Command,
        log: Path,
        answers: Callable[[], Awaitable[bool]],
        clear: Callable[[], object],
        deadly: signal.Signals,
    ) -> None:
        self._command = command
        self._log = log
        self._answers = answers
        self._clear = clear
        self._deadly = deadly
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start the server and wait until it answers."""
        await asyncio.to_thread(self._clear)
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: ASYNC220  # a fork takes no time worth a thread
                self._command.argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, **self._command.popen()
            )
        until_s = time.monotonic() + 30
        while not await self._answers():
            if self._process.poll() is not None or time.monotonic() > until_s:
                raise RuntimeError(f"{self._command.name} did not come up:\n{self._log.read_text()}")
            await asyncio.sleep(0.05)

    async def kill(self) -> None:
        """End it without a farewell."""
        if self._process is not None:
            self._process.send_signal(self._deadly)
            await asyncio.to_thread(self._process.wait, 30)
            self._process = None


class Servers:
    """A Postgres with one migrated database, and a Redis."""

    def __init__(self, directory: Path) -> None:
        for name in ("postgres", "redis"):
            (directory / name).mkdir()
        pg_home, redis_home = open_directory(directory / "postgres"), open_directory(directory / "redis")
        # An immediate stop (SIGQUIT) is a crash to Postgres; with SIGKILL its children would live on for a while.
        server = describe_postgres(pg_home, socket_directory(pg_home), durable=True)
        self.postgres = Breakable(
            postgres_command(server),
            directory / "postgres.log",
            lambda: postgres_answers(server),
            lambda: postgres.prepare(server),
            signal.SIGQUIT,
        )
        store = describe_redis(redis_home, socket_directory(redis_home), durable=True)
        self.redis = Breakable(
            redis_command(store),
            directory / "redis.log",
            lambda: redis_answers(store.url),
            lambda: redis.remove_stale(store),
            signal.SIGKILL,
        )
        self._server = server
        self.redis_url = store.url
        self.database_url = ""

    async def prepare(self) -> None:
        """Start both, and make the database."""
        await self.postgres.start()
        await self.redis.start()
        name = f"spine_{secrets.token_hex(4)}"
        owner = await asyncpg.connect(self._server.url("postgres"))
        await owner.execute(f"CREATE DATABASE {name}")
        await owner.close()
        self.database_url = self._server.url(name)
        await asyncio.to_thread(run_migrations, self.database_url)

    async def flush_redis(self) -> None:
        """Empty Redis."""
        async with Redis.from_url(self.redis_url) as client:
            await client.flushall()


@asynccontextmanager
async def servers_to_break(directory: Path) -> AsyncIterator[Servers]:
    """Both servers, running."""
    servers = Servers(directory)
    try:
        await servers.prepare()
        yield servers
    finally:
        await servers.redis.kill()
        await servers.postgres.kill()
