"""Connections to Redis: settings from a URL, and a client for the API and the workers."""

from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from arq.connections import RedisSettings
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

TIMEOUT_S: Final = 1.0
"""The longest wait for an answer of Redis, where no call blocks in it."""

Client = TypeVar("Client", bound=Redis)


def redis_settings(url: str, *, retries: int = 20) -> RedisSettings:
    """Return the connection settings for arq and `open_redis`. The client reconnects when Redis restarts."""
    retry: dict[str, Any] = {
        "retry": Retry(ExponentialBackoff(cap=1, base=0.05), retries),
        "retry_on_error": [
            RedisConnectionError,
            RedisTimeoutError,
            ConnectionRefusedError,
            ConnectionResetError,
            FileNotFoundError,
        ],
        "conn_timeout": 2,
        "conn_retries": 60,
    }
    parts = urlsplit(url)
    if parts.scheme == "sentinel":
        hosts = [
            (host.rpartition(":")[0], int(host.rpartition(":")[2]))
            for host in parts.netloc.rpartition("@")[2].split(",")
        ]
        master, _, database = parts.path.strip("/").partition("/")
        return RedisSettings(
            host=hosts,
            sentinel=True,
            sentinel_master=master,
            database=int(database or 0),
            password=parts.password,
            **retry,
        )
    settings = RedisSettings.from_dsn(url)
    for name, value in retry.items():
        setattr(settings, name, value)
    return settings


def open_redis(url: str) -> Redis:
    """Return a client that connects on first use. A call times out after 1 s, so no caller waits long for Redis.

    Do not stop a task that uses the client by cancelling the task alone: before Python 3.12 the `asyncio.wait_for` in
    the client may lose a cancellation (https://github.com/python/cpython/issues/86296).
    """
    settings = redis_settings(url, retries=1)
    if settings.sentinel:
        return open_client(settings, Redis)
    client: Redis = Redis.from_url(
        url,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        retry=settings.retry,
        retry_on_error=settings.retry_on_error,
    )
    return client


def open_client(settings: RedisSettings, client: type[Client], timeout_s: float = TIMEOUT_S, **options: Any) -> Client:
    """Return a client of this class that waits at most `timeout_s` for an answer: a Redis may hang and keep connections open.

    A call that blocks in Redis needs a client with a longer time-out than its own.
    """
    connection: dict[str, Any] = {
        "db": settings.database,
        "username": settings.username,
        "password": settings.password,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": TIMEOUT_S,
        "retry": settings.retry,
        "retry_on_error": settings.retry_on_error,
    }
    if settings.sentinel:
        sentinel = Sentinel(settings.host, socket_timeout=TIMEOUT_S, password=settings.password)  # type: ignore[no-untyped-call]  # redis-py 5
        master: Client = sentinel.master_for(settings.sentinel_master, redis_class=client, **connection, **options)
        return master
    return client(
        host=str(settings.host),
        port=settings.port,
        unix_socket_path=settings.unix_socket_path,
        ssl=settings.ssl,
        **connection,
        **options,
    )
