"""The entry point of the API: `python -m products.app`. Reads the settings, opens the platform and serves the catalogue."""

import asyncio
import contextlib
import functools
import resource
import socket
from collections.abc import AsyncIterator
from typing import Final

import uvicorn
from fastapi import FastAPI

from products.catalogue import CATALOGUE, PRODUCTS, ROUTERS, SCHEMA_NAMES
from products.error_handlers import install_error_handlers
from products.mcp.endpoint import McpEndpoint
from products.mcp.routes import router as mcp_router
from products.pages.routers import PAGE_ROUTERS
from products.platform import Connections, new_platform
from products.reference_pages import router as reference_router
from products.reference_texts import EXAMPLES, TAGS, TITLES
from products.request_ids import RequestIds
from products.system import router as system_router
from products.works.live_queues import LiveQueues
from products.works.queues import show_queue
from spine import __version__
from spine.kernel import garbage_collection
from spine.kernel.database import open_engine, open_pool
from spine.kernel.database_clock import DatabaseClock
from spine.kernel.http_client import HttpClient
from spine.kernel.http_server import server_config
from spine.kernel.logs import configure_log
from spine.kernel.metrics import EVENT_TYPES
from spine.kernel.openapi.documents import SUITE, Texts, build_documents
from spine.kernel.partitions import watch_partitions
from spine.kernel.platform_mail import PlatformMail
from spine.kernel.redis_client import open_redis
from spine.kernel.settings import (
    DatabaseSettings,
    EgressSettings,
    HttpSettings,
    MailSettings,
    McpSettings,
    VaultSettings,
    WakeupSettings,
)
from spine.kernel.vault import Vault
from spine.kernel.wakeups import Wakeups

_TEXTS: Final = Texts(TITLES, TAGS, EXAMPLES, SCHEMA_NAMES)
_OTHER_FILES: Final = 256
"""Open files beside the callers' connections: database, Redis, logs, outgoing calls."""


@contextlib.asynccontextmanager
async def _platform(app: FastAPI) -> AsyncIterator[None]:
    database, http = DatabaseSettings(), HttpSettings()
    vault = Vault.from_text(VaultSettings().encryption_key.get_secret_value())
    async with contextlib.AsyncExitStack() as stack:
        pool = await open_pool(database.database_url, "spine_app", "spine api", database.database_pool_size)
        stack.push_async_callback(pool.close)
        engine = open_engine(database.database_url, "spine_app", "spine api", database.database_pool_size)
        stack.push_async_callback(engine.dispose)
        redis = open_redis(WakeupSettings().redis_url)
        stack.push_async_callback(redis.aclose)
        clock = DatabaseClock()
        await clock.measure(pool.fetchval)
        wakeups = Wakeups(redis, clock)
        stack.push_async_callback(wakeups.close)
        mail = PlatformMail(MailSettings())
        stack.push_async_callback(mail.close)
        http_client = await stack.enter_async_context(HttpClient(EgressSettings()))
        platform = await new_platform(Connections(pool, engine, redis, http_client, wakeups, clock, mail), http, vault)
        backgrounds = (
            platform.authenticator.track_key_use(),
            platform.backpressure.watch(),
            clock.follow(pool),
            watch_partitions(pool),
        )
        for background in backgrounds:
            stack.callback(asyncio.create_task(background).cancel)
        app.state.platform = platform
        app.state.mcp = McpEndpoint(app, McpSettings())
        app.state.live_queues = LiveQueues(platform, show_queue)
        stack.callback(app.state.live_queues.close)
        EVENT_TYPES.declare(CATALOGUE.types)
        yield


def build() -> FastAPI:
    """Build the application with every route. It reads no settings and opens no connection before its lifespan starts."""
    app = FastAPI(
        title="Spine",
        version=__version__,
        lifespan=_platform,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.include_router(system_router)
    app.include_router(mcp_router)
    app.include_router(reference_router)
    for router in (*ROUTERS, *PAGE_ROUTERS):
        app.include_router(router)
    install_error_handlers(app)
    app.add_middleware(RequestIds)
    # The OpenAPI documents, each a function that returns it. They are built at their first use: it would make the start too slow.
    documents = functools.cache(lambda: build_documents(app, CATALOGUE, ROUTERS, PRODUCTS, _TEXTS))
    app.state.documents = {name: lambda name=name: documents()[name] for name in (SUITE, *PRODUCTS)}
    return app


app = build()


def _listening_socket(settings: HttpSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.http_host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # several API processes share one port
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted connections inherit it
    listener.bind((settings.http_host, settings.http_port))
    return listener


def _allow_open_files(settings: HttpSettings) -> None:
    """Raise the soft limit of open files as far as the connections need, or as it can be raised."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.max_connections + _OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    configure_log()
    settings = HttpSettings()
    _allow_open_files(settings)
    server = uvicorn.Server(server_config(app, settings))
    garbage_collection.freeze_startup_objects()
    server.run(sockets=[_listening_socket(settings)])


if __name__ == "__main__":
    main()
