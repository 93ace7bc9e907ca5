"""Connections to Redis: settings from a URL, and a client for the API and the workers."""

from typing import Any
from urllib.parse import urlsplit

from arq.connections import RedisSettings
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError


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
    options: dict[str, Any] = {
        "socket_timeout": 1,
        "socket_connect_timeout": 1,
        "retry": settings.retry,
        "retry_on_error": settings.retry_on_error,
    }
    if settings.sentinel:
        sentinel = Sentinel(settings.host, socket_timeout=1, password=settings.password)  # type: ignore[no-untyped-call]  # redis-py 5
        master: Redis = sentinel.master_for(settings.sentinel_master, db=settings.database, **options)
        return master
    client: Redis = Redis.from_url(url, **options)
    return client
