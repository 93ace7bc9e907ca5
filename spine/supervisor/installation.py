"""The whole installation: servers, then migrations, then workers and API; down in the reverse order.

Each floor is a tuple of keepers. A floor starts when the one below answers and stops when the one above is gone, so
the API takes no request that it cannot store and a draining worker still has its database.
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
from spine.supervisor.output import Output
from spine.supervisor.plan import Plan, api_commands, connected, migrate_command, worker_commands
from spine.supervisor.secret_store import write
from spine.supervisor.supervised_process import SupervisedProcess
from spine.supervisor.welcome import first_keys, welcome

_SERVER_READY_S = 60.0
_READY_S = 120.0
_POLL_S = 0.1
# A process that ended this often in a row before anything answered will not come up by itself.
_HOPELESS = 4


class Installation:
    """What is running. `start` builds it floor by floor, `stop` takes down as much as there is."""

    def __init__(self, plan: Plan, output: Output) -> None:
        self._plan = plan
        self._output = output
        self._floors: list[tuple[SupervisedProcess, ...]] = []

    async def start(self) -> None:
        """Start everything and say so. Raises StartError when a part does not come up."""
        plan = self._plan
        database_url, redis_url = await self._postgres(), await self._redis()
        environment = connected(plan, database_url, redis_url)
        names = ("DATABASE_URL", "REDIS_URL", "SPINE_ENCRYPTION_KEY", "SPINE_OPERATOR_TOKEN")
        # The command line reads it, so that `spine` in another terminal finds this installation.
        known = {name: environment[name] for name in names}
        known |= {"SPINE_HTTP_HOST": plan.http.http_host, "SPINE_HTTP_PORT": str(plan.http.http_port)}
        write(plan.directory / "environment", "".join(f"{name}={value}\n" for name, value in known.items()))
        await self._run_once(migrate_command(plan, environment))
        # Fresh figures at each start; an API process that is started again goes on adding to them.
        shutil.rmtree(plan.api_figures, ignore_errors=True)
        plan.api_figures.mkdir()
        self._start(*(SupervisedProcess(command, self._output) for command in worker_commands(plan, environment)))
        self._start(*(SupervisedProcess(command, self._output) for command in api_commands(plan, environment)))
        async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
            await self._until(lambda: _answers(http, f"{plan.address}/readyz"), "the API", _READY_S)
            for url in plan.worker_metrics:
                await self._until(partial(_answers, http, url), "a worker", _READY_S)
            keys = plan.directory / "keys.json"
            test_key = await first_keys(plan.address, keys, http)
        self._output.show(welcome(plan.address, test_key, keys))
        self._output.say(f"metrics: {' '.join((f'{plan.address}/metrics', *plan.worker_metrics))}")

    async def stop(self, hurry: asyncio.Event) -> None:
        """Stop every floor, the highest first."""
        while self._floors:
            floor = self._floors.pop()
            self._output.say(f"stopping {', '.join(process.name for process in floor)}")
            await asyncio.gather(*(process.stop(hurry) for process in floor))

    def _start(self, *processes: SupervisedProcess) -> None:
        self._floors.append(processes)
        for process in processes:
            process.start()

    async def _postgres(self) -> str:
        url = self._plan.database_url
        if url is not None:
            await self._until(lambda: _database_answers(url), "the database at DATABASE_URL", _SERVER_READY_S)
            return url
        sockets = socket_directory(self._plan.directory)
        server = await asyncio.to_thread(postgres.describe_postgres, self._plan.directory, sockets)
        self._output.say(f"starting Postgres from {server.programs}, data in {server.data}")
        await asyncio.to_thread(postgres.prepare, server)
        command = postgres.postgres_command(server)
        self._start(SupervisedProcess(command, self._output, lambda: postgres.remove_stale(server)))
        await self._until(lambda: postgres.postgres_answers(server), "Postgres", _SERVER_READY_S)
        return server.url()

    async def _redis(self) -> str:
        url = self._plan.redis_url
        if url is not None:
            # A list of Sentinels is not an address that can be asked; the API's own /readyz tells of it.
            if not url.startswith("sentinel:"):
                await self._until(lambda: redis.redis_answers(url), "the Redis at REDIS_URL", _SERVER_READY_S)
            return url
        sockets = socket_directory(self._plan.directory)
        server = await asyncio.to_thread(redis.describe_redis, self._plan.directory, sockets)
        self._output.say(f"starting Redis from {server.program}, data in {server.data}")
        self._start(SupervisedProcess(redis.redis_command(server), self._output, lambda: redis.remove_stale(server)))
        await self._until(lambda: redis.redis_answers(server.url), "Redis", _SERVER_READY_S)
        return server.url

    async def _run_once(self, command: Command) -> None:
        process = SupervisedProcess(command, self._output)
        self._floors.append((process,))
        code = await process.run_once()
        self._floors.pop()
        if code != 0:
            raise StartError(f"{command.name} failed (exit code {code}); what it said stands above.")

    async def _until(self, answers: Callable[[], Awaitable[bool]], what: str, within_s: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + within_s
        while not await answers():
            hopeless = [process.name for process in _all(self._floors) if process.quick_deaths >= _HOPELESS]
            if hopeless:
                raise StartError(f"{hopeless[0]} ends as soon as it starts; what it said stands above.")
            if loop.time() > end:
                raise StartError(f"{what} does not answer after {within_s:g} s.")
            await asyncio.sleep(_POLL_S)


def _all(floors: Sequence[tuple[SupervisedProcess, ...]]) -> list[SupervisedProcess]:
    return [process for floor in floors for process in floor]


async def _answers(http: httpx.AsyncClient, url: str) -> bool:
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
