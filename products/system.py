"""Routes that belong to no product: health, metrics and the OpenAPI documents."""

import asyncio
import hmac
from collections.abc import Callable
from typing import Any

import asyncpg
import orjson
from fastapi import APIRouter, Request, Response
from redis.exceptions import RedisError
from sqlalchemy.pool import AsyncAdaptedQueuePool

from spine.kernel.client_address import is_local
from spine.kernel.errors import Forbidden, NotFound
from spine.kernel.metrics import PoolStats, exposition, observe_pool
from spine.kernel.platform import Platform
from spine.kernel.responses import JSON

router = APIRouter(include_in_schema=False)
_CHECK_TIMEOUT_S = 2


@router.get("/livez")
async def livez() -> Response:
    """Report that the process responds."""
    return Response(b'{"status":"ok"}', media_type=JSON)


@router.get("/readyz")
async def readyz(request: Request) -> Response:
    """Report whether requests can be served, and what is missing."""
    platform: Platform = request.app.state.platform
    missing = [text for text in (await _database_missing(platform), await _redis_missing(platform)) if text]
    # Without Redis events are still accepted and delivered, a little later. So its absence is reported, and the process stays ready.
    ready = not any(text.startswith("database") for text in missing)
    body = orjson.dumps({"status": "ok" if ready else "unavailable", "missing": missing})
    return Response(body, 200 if ready else 503, media_type=JSON)


async def _database_missing(platform: Platform) -> str | None:
    try:
        async with asyncio.timeout(_CHECK_TIMEOUT_S):
            current = await platform.pool.fetchval("SELECT to_regclass('spine.outbox') IS NOT NULL")
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return f"database: not reachable at DATABASE_URL ({type(error).__name__})"
    return None if current else "database: not migrated; run `python -m spine.migrations`"


async def _redis_missing(platform: Platform) -> str | None:
    try:
        async with asyncio.timeout(_CHECK_TIMEOUT_S):
            await platform.redis.ping()
    except (OSError, TimeoutError, RedisError) as error:
        return f"redis: not reachable at REDIS_URL ({type(error).__name__}); work goes on by the sweep"
    return None


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Return the Prometheus metrics to the holder of the operator's token or, if there is none, to callers on this machine.

    A proxy on this machine may name nobody in its headers, so where a token is set no header and no address stands in for
    it, unless SPINE_METRICS_ACCESS says that there is no proxy.
    """
    platform: Platform = request.app.state.platform
    http, token = platform.http, platform.http.operator_token
    given = (request.headers.get("authorization") or "").removeprefix("Bearer ").encode()
    by_token = token is not None and hmac.compare_digest(given, token.get_secret_value().encode())
    open_to_local = token is None or http.metrics_access == "local"
    if not by_token and not (open_to_local and is_local(request, http.trusted_proxies)):
        raise Forbidden("metrics take SPINE_OPERATOR_TOKEN as a bearer token", code="operator_only")
    _observe_pools(platform)
    body, media_type = exposition()
    return Response(body, media_type=media_type)


def _observe_pools(platform: Platform) -> None:
    orm = platform.engine.pool
    assert isinstance(orm, AsyncAdaptedQueuePool)
    direct = platform.pool
    observe_pool(
        "database",
        PoolStats(
            size=direct.get_size() + orm.checkedin() + orm.checkedout(),
            in_use=direct.get_size() - direct.get_idle_size() + orm.checkedout(),
            limit=direct.get_max_size() + orm.size(),
        ),
    )


async def _document(request: Request, name: str) -> Response:
    documents: dict[str, Callable[[], dict[str, Any]]] = request.app.state.documents
    if name not in documents:
        raise NotFound("there is no such path")
    return Response(orjson.dumps(await asyncio.to_thread(documents[name])), media_type=JSON)


@router.get("/openapi.json")
async def openapi_of_all(request: Request) -> Response:
    """Return the document of all products."""
    return await _document(request, "spine")


@router.get("/v1/openapi.json")
async def openapi_of_platform(request: Request) -> Response:
    """Return the document of the platform."""
    return await _document(request, "platform")


@router.get("/{product}/v1/openapi.json")
async def openapi_of_product(product: str, request: Request) -> Response:
    """Return the document of one product."""
    return await _document(request, product)
