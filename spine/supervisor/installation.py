"""The whole installation: starts servers, then migrations, then workers and API, and stops them in reverse order.

Each layer is a tuple of supervised processes. A layer starts when the layer below is ready and stops when the layer
above has ended, so the API accepts no request that it cannot store and a draining worker still has its database.
"""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import asyncpg
import httpx

from spine.supervisor import postgres, redis
from spine.supervisor.command import Command, StartError
from spine.supervisor.data_directory import socket_directory
from spine.supervisor.database_logins import DatabaseUrls, create_owner, create_process_logins
from spine.supervisor.output import Output
from spine.supervisor.plan import Plan, api_commands, migrate_command, process_environment, worker_commands
from spine.supervisor.secret_store import write
from spine.supervisor.supervised_process import SupervisedProcess
from spine.supervisor.welcome import format_welcome, load_or_create_test_key

_SERVER_READY_S = 60.0
_READY_S = 120.0
_POLL_S = 0.1
# A process that exits this often in a row before it is ready will not start by itself.
_QUICK_EXITS_MAX = 4


class Installation:
    """The running processes. `start` starts them layer by layer; `stop` stops those that were started."""

    def __init__(self, plan: Plan, output: Output) -> None:
        self._plan = plan
        self._output = output
        self._layers: list[tuple[SupervisedProcess, ...]] = []

    async def start(self) -> None:
        """Start everything and print the first steps. Raises StartError if a part does not become ready."""
        plan = self._plan
        (administrator_url, owner_url), redis_url = await self._postgres(), await self._redis()
        environment = process_environment(plan, owner_url, redis_url)
        names = ("DATABASE_URL", "REDIS_URL", "SPINE_ENCRYPTION_KEY", "SPINE_OPERATOR_TOKEN")
        # The command line reads this file, so that `spine` in another terminal finds this installation.
        exported = {name: environment[name] for name in names}
        exported |= {"SPINE_HTTP_HOST": plan.http.http_host, "SPINE_HTTP_PORT": str(plan.http.http_port)}
        write(plan.directory / "environment", "".join(f"{name}={value}\n" for name, value in exported.items()))
        await self._run_once(migrate_command(plan, environment))
        urls = await self._logins(administrator_url, owner_url)
        # Metrics start at zero at each start. An API process that is restarted adds to them.
        shutil.rmtree(plan.api_metrics, ignore_errors=True)
        plan.api_metrics.mkdir()
        self._start(
            *(
                SupervisedProcess(command, self._output)
                for command in worker_commands(plan, environment | {"DATABASE_URL": urls.worker})
            )
        )
        self._start(
            *(
                SupervisedProcess(command, self._output)
                for command in api_commands(plan, environment | {"DATABASE_URL": urls.api})
            )
        )
        async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
            await self._wait_until(lambda: _responds(http, f"{plan.address}/readyz"), "the API", _READY_S)
            for url in plan.worker_metrics:
                await self._wait_until(partial(_responds, http, url), "a worker", _READY_S)
            keys = plan.directory / "keys.json"
            test_key = await load_or_create_test_key(plan.address, keys, http)
        self._output.print(format_welcome(plan.address, test_key, keys))
        self._output.log(f"metrics: {' '.join((f'{plan.address}/metrics', *plan.worker_metrics))}")

    async def stop(self, force: asyncio.Event) -> None:
        """Stop every layer, the highest first; at once when `force` is set."""
        while self._layers:
            layer = self._layers.pop()
            self._output.log(f"stopping {', '.join(process.name for process in layer)}")
            await asyncio.gather(*(process.stop(force) for process in layer))

    def _start(self, *processes: SupervisedProcess) -> None:
        self._layers.append(processes)
        for process in processes:
            process.start()

    async def _logins(self, administrator_url: str, owner_url: str) -> DatabaseUrls:
        """The URLs of the processes. On a server that refuses them logins of their own, they log in as the owner."""
        try:
            return await create_process_logins(administrator_url, owner_url, self._plan.encryption_key)
        except (OSError, TimeoutError, asyncpg.PostgresError) as error:
            self._output.log(
                f"API and workers log in as the owner of DATABASE_URL and step down, because the server admits no logins "
                f"of their own ({error}). docs/operating.md says how to create them."
            )
            return DatabaseUrls(owner_url, owner_url, owner_url)

    async def _postgres(self) -> tuple[str, str]:
        """The URL of the database for who may create roles, and for its owner."""
        url = self._plan.database_url
        if url is not None:
            await self._wait_until(lambda: _database_answers(url), "the database at DATABASE_URL", _SERVER_READY_S)
            return url, url
        sockets = socket_directory(self._plan.directory)
        server = await asyncio.to_thread(postgres.describe_postgres, self._plan.directory, sockets)
        self._output.log(f"starting Postgres from {server.programs}, data in {server.data}")
        await asyncio.to_thread(postgres.prepare, server)
        command = postgres.postgres_command(server)
        self._start(SupervisedProcess(command, self._output, lambda: postgres.remove_stale(server)))
        await self._wait_until(lambda: postgres.postgres_answers(server), "Postgres", _SERVER_READY_S)
        return server.url(), await create_owner(server.url())

    async def _redis(self) -> str:
        url = self._plan.redis_url
        if url is not None:
            # A list of Sentinels is not the address of one server; the API's own /readyz checks it.
            if not url.startswith("sentinel:"):
                await self._wait_until(lambda: redis.redis_answers(url), "the Redis at REDIS_URL", _SERVER_READY_S)
            return url
        sockets = socket_directory(self._plan.directory)
        server = await asyncio.to_thread(redis.describe_redis, self._plan.directory, sockets)
        self._output.log(f"starting Redis from {server.program}, data in {server.data}")
        self._start(SupervisedProcess(redis.redis_command(server), self._output, lambda: redis.remove_stale(server)))
        await self._wait_until(lambda: redis.redis_answers(server.url), "Redis", _SERVER_READY_S)
        return server.url

    async def _run_once(self, command: Command) -> None:
        process = SupervisedProcess(command, self._output)
        self._layers.append((process,))
        code = await process.run_once()
        self._layers.pop()
        if code != 0:
            raise StartError(f"{command.name} failed (exit code {code}); what it said stands above.")

    async def _wait_until(self, is_ready: Callable[[], Awaitable[bool]], what: str, within_s: float) -> None:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + within_s
        while not await is_ready():
            failing = [process.name for process in _all(self._layers) if process.quick_exits >= _QUICK_EXITS_MAX]
            if failing:
                raise StartError(f"{failing[0]} ends as soon as it starts; what it said stands above.")
            if loop.time() > until_s:
                raise StartError(f"{what} does not answer after {within_s:g} s.")
            await asyncio.sleep(_POLL_S)


def _all(layers: Sequence[tuple[SupervisedProcess, ...]]) -> list[SupervisedProcess]:
    return [process for layer in layers for process in layer]


async def _responds(http: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(url)).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


async def _database_answers(url: str) -> bool:
    try:
        connection = await asyncpg.connect(url, timeout=5)
    except (OSError, asyncpg.PostgresError):
        return False
    await connection.close()
    return True
