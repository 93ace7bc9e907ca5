"""The real API on a loopback port, in a thread of the test process, with real servers.

The tests of one module share `api`. Each test signs up its own organisation (`org`), so tests do not share rows.
`serve(...)` runs another API, with other settings or on the same database.
"""

import os
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from products.app import build
from spine.kernel.http_server import server_config
from spine.kernel.settings import HttpSettings
from tests.delivery_engine import KEY

MUTATING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
TLS: Final = ssl.create_default_context()
"""For clients that call plain HTTP only: a context of its own costs each of them 30 ms."""


def unique_key() -> str:
    """Return a new Idempotency-Key."""
    return secrets.token_hex(12)


def _with_key(request: httpx.Request) -> None:
    if request.method in MUTATING:
        request.headers.setdefault("Idempotency-Key", unique_key())


async def _with_key_async(request: httpx.Request) -> None:
    _with_key(request)


@dataclass(frozen=True, slots=True)
class Account:
    """A workspace and its first key."""

    url: str
    organisation_id: str
    workspace_id: str
    key: str

    def client(self, key: str | None = None) -> httpx.Client:
        """Return a client with this workspace's key or another one. It adds an Idempotency-Key to calls without one."""
        return client(self.url, key or self.key)

    def async_client(self, key: str | None = None, *, connections: int = 100) -> httpx.AsyncClient:
        """Return an asynchronous client of the same kind."""
        return httpx.AsyncClient(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key or self.key}"},
            event_hooks={"request": [_with_key_async]},
            timeout=30,
            trust_env=False,
            verify=TLS,
            limits=httpx.Limits(max_connections=connections),
        )


def client(url: str, key: str | None) -> httpx.Client:
    """Return a client that adds an Idempotency-Key to calls without one. Without a key it is not authenticated."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.Client(
        base_url=url, headers=headers, event_hooks={"request": [_with_key]}, timeout=30, trust_env=False, verify=TLS
    )


@dataclass(frozen=True, slots=True)
class Organisation:
    """The two workspaces of a signup."""

    test: Account
    live: Account


@dataclass(frozen=True, slots=True)
class Api:
    """A running API."""

    url: str
    app: FastAPI
    database_url: str
    redis_url: str

    def sign_up(self, name: str = "Acme") -> Organisation:
        """Sign up an organisation."""
        with client(self.url, None) as anybody:
            made = anybody.post("/v1/signup", json={"name": name, "email": f"{secrets.token_hex(6)}@example.com"})
        assert made.status_code == 201, made.text
        body = made.json()
        accounts: dict[str, Any] = {
            env: Account(self.url, body["organisation"]["id"], body[env]["workspace_id"], body[env]["api_key"])
            for env in ("test", "live")
        }
        return Organisation(**accounts)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def serve(database_url: str, redis_url: str, **settings: str) -> Iterator[Api]:
    """Serve the API with these settings (names of environment variables) until the block ends."""
    app = build()
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    environment = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "SPINE_HTTP_PORT": str(port),
        "SPINE_ENCRYPTION_KEY": KEY,  # the key of the workers under test
        "SPINE_SIGNUP": "open",
        "SPINE_SIGNUP_CONFIRMATION": "none",
        "SPINE_SIGNUP_PER_HOUR": "100000",
        "SPINE_EGRESS_ALLOW": "127.0.0.0/8,::1/128",
        **settings,
    }
    with _environment(environment):
        server = uvicorn.Server(server_config(app, HttpSettings()))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("the API did not start; its log says why")
            time.sleep(0.01)
    try:
        yield Api(url, app, database_url, redis_url)
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        listening.close()


@pytest.fixture(scope="module")
def api(module_database: str, module_redis_url: str) -> Iterator[Api]:
    """The API that the tests of one module share."""
    with serve(module_database, module_redis_url) as running:
        yield running


@pytest.fixture
def org(api: Api) -> Organisation:
    """A new organisation for one test."""
    return api.sign_up()


@pytest.fixture
def http(org: Organisation) -> Iterator[httpx.Client]:
    """A client of the organisation's test workspace, with every scope."""
    with org.test.client() as made:
        yield made


@pytest.fixture
def live_http(org: Organisation) -> Iterator[httpx.Client]:
    """A client of the organisation's live workspace, with every scope."""
    with org.live.client() as made:
        yield made
