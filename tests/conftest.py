"""Fixtures of all tests: real servers, new databases, and no network traffic beyond this machine."""

import asyncio
import gc
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from hypothesis import settings
from redis import Redis

from tests.servers import run_migrations, throwaway_postgres, throwaway_redis

_TESTS = Path(__file__).parent
_TEMPLATE = "spine_template"

# Imports create no cyclic garbage, and collections during them take a fifth of the time of the unit tests.
gc.disable()

# Few examples for a quick run; each run draws other ones. `make test` runs more (--hypothesis-profile=thorough).
settings.register_profile("quick", max_examples=20, deadline=None)
settings.register_profile("thorough", max_examples=50, deadline=None)
settings.load_profile("quick")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Unit tests may open no sockets; other tests may connect to this machine only."""
    for item in items:
        if item.path.is_relative_to(_TESTS / "unit"):
            item.add_marker(pytest.mark.disable_socket)
        elif item.get_closest_marker("allow_hosts") is None:
            item.add_marker(pytest.mark.allow_hosts(["127.0.0.0/8", "::1/128", "localhost"]))


def pytest_collection_finish() -> None:
    """Enable garbage collection again, without the objects of the imported modules."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Postgres server, as its owner: SPINE_TEST_DATABASE_URL, or a temporary server."""
    given = os.environ.get("SPINE_TEST_DATABASE_URL")
    if given:
        yield given
        return
    with throwaway_postgres(tmp_path_factory.mktemp("postgres")) as url:
        yield url


def other_database(url: str, name: str) -> str:
    """Return the URL of another database of the same server."""
    return urlsplit(url)._replace(path=f"/{name}").geturl()


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def template_database(postgres_url: str) -> str:
    """The name of a migrated, empty database, which is the template of the others."""
    name = f"{_TEMPLATE}_{secrets.token_hex(4)}"
    asyncio.run(_execute(postgres_url, f"CREATE DATABASE {name}"))
    run_migrations(other_database(postgres_url, name))
    return name


@contextmanager
def empty_database(postgres_url: str) -> Iterator[str]:
    """Create a database without migrations and yield its URL. Drops it at the end of the block."""
    name = f"spine_empty_{secrets.token_hex(6)}"
    asyncio.run(_execute(postgres_url, f"CREATE DATABASE {name}"))
    try:
        yield other_database(postgres_url, name)
    finally:
        asyncio.run(_execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)"))


@contextmanager
def _clone(postgres_url: str, template: str) -> Iterator[str]:
    name = f"spine_test_{secrets.token_hex(6)}"
    # Without fsync files are copied in a tenth of the time that it takes to log their blocks, which is the default.
    asyncio.run(_execute(postgres_url, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY"))
    try:
        yield other_database(postgres_url, name)
    finally:
        asyncio.run(_execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def database(postgres_url: str, template_database: str) -> Iterator[str]:
    """The URL of a migrated database for one test."""
    with _clone(postgres_url, template_database) as url:
        yield url


@pytest.fixture(scope="module")
def module_database(postgres_url: str, template_database: str) -> Iterator[str]:
    """The URL of a migrated database for the tests of one module."""
    with _clone(postgres_url, template_database) as url:
        yield url


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis server: SPINE_TEST_REDIS_URL (its data is deleted), or a temporary server."""
    given = os.environ.get("SPINE_TEST_REDIS_URL")
    if given:
        yield given
        return
    with throwaway_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


def _flushed(url: str) -> str:
    with Redis.from_url(url) as client:
        client.flushall()
    return url


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """The URL of a Redis that is empty at the start of the test."""
    return _flushed(redis_server)


@pytest.fixture(scope="module")
def module_redis_url(redis_server: str) -> str:
    """The URL of a Redis that is empty at the start of the module's first test."""
    return _flushed(redis_server)
