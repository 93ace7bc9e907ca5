"""Throwaway Postgres and Redis servers for tests, started by the same code as `make up`, without its durability."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from spine.supervisor import postgres, redis
from spine.supervisor.command import Command
from spine.supervisor.data_directory import open_directory, socket_directory
from spine.supervisor.postgres import describe_postgres, postgres_answers, postgres_command
from spine.supervisor.redis import describe_redis, redis_answers, redis_command

ROOT = Path(__file__).parent.parent


@contextmanager
def running(command: Command, log: Path, answers: Callable[[], Awaitable[bool]]) -> Iterator[None]:
    """Run a server until the block ends. Its output goes to `log`, and into the error if it does not start."""

    async def wait() -> None:
        until_s = time.monotonic() + 30
        while not await answers():
            if process.poll() is not None or time.monotonic() > until_s:
                raise TimeoutError
            await asyncio.sleep(0.02)

    popen = command.popen() | {"stdin": subprocess.DEVNULL}
    with log.open("wb") as output:
        process = subprocess.Popen(command.argv, stdout=output, stderr=output, **popen)
    try:
        try:
            asyncio.run(wait())
        except TimeoutError:
            raise RuntimeError(f"{command.name} did not start:\n{log.read_text()}") from None
        yield
    finally:
        process.send_signal(signal.SIGQUIT if command.name == "postgres" else signal.SIGKILL)
        process.wait(timeout=20)


@contextmanager
def throwaway_postgres(directory: Path) -> Iterator[str]:
    """A Postgres that is not durable; yields the URL of its maintenance database."""
    directory = open_directory(directory)
    server = describe_postgres(directory, socket_directory(directory), durable=False)
    postgres.prepare(server)
    with running(postgres_command(server), directory / "postgres.log", lambda: postgres_answers(server)):
        yield server.url("postgres")


@contextmanager
def throwaway_redis(directory: Path) -> Iterator[str]:
    """A Redis that is not durable; yields its URL."""
    directory = open_directory(directory)
    server = describe_redis(directory, socket_directory(directory), durable=False)
    redis.remove_stale(server)
    with running(redis_command(server), directory / "redis.log", lambda: redis_answers(server.url)):
        yield server.url


def run_migrations(database_url: str) -> None:
    """Apply the migrations as `make up` does."""
    done = subprocess.run(
        [sys.executable, "-m", "spine.migrations"],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"the migrations failed:\n{done.stdout}{done.stderr}")
