"""The endpoint /mcp: the checks that every request passes before the protocol server sees it.

    Host, Origin ─► 401 key ─► body ─► 429 rate ─► protocol server ─► for a call: the operation's own route, with all its checks

The rate is taken once: here, except for calls, whose operation takes it. The key is checked here and not by the SDK, whose
verifiers see neither the caller's address nor our errors.
"""

import asyncio
import importlib
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request, Response
from starlette.types import ASGIApp

from products.mcp.exchange import SCOPE, Exchange
from products.mcp.in_process import request_in_process
from products.mcp.origins import base_url, check_origin
from products.mcp.tools import Tool, read_tools
from spine.kernel.authentication import Caller
from spine.kernel.client_address import client_site
from spine.kernel.errors import InvalidBody, NotFound, Unauthenticated
from spine.kernel.openapi.documents import SUITE
from spine.kernel.platform import Platform
from spine.kernel.request_body import BodyRequest
from spine.kernel.responses import JSON
from spine.kernel.settings import McpSettings

PATH: Final = "/mcp"
METADATA_PATH: Final = "/.well-known/oauth-protected-resource"
_SERVER: Final = "products.mcp.server"
_PARSE_ERROR: Final = -32700


class McpEndpoint:
    """Serves the tools of an API. They are read and the SDK is imported at the first use, in a thread."""

    def __init__(self, app: FastAPI, settings: McpSettings) -> None:
        self._app = app
        self._settings = settings
        self._loading = asyncio.Lock()
        self._tools: dict[str, Tool] | None = None
        self._server: ASGIApp | None = None

    async def serve(self, request: BodyRequest) -> Response:
        """Return the answer to one request. Raises SpineError."""
        platform = self._admit(request)
        caller = await self._authenticate(request, platform)
        try:
            message = await request.json()
        except InvalidBody as error:
            return _parse_error(error, request.scope["spine.request_id"])
        if not (isinstance(message, dict) and message.get("method") == "tools/call"):
            request.scope["spine.headers"] = await platform.limiter.take(caller.workspace_id)
        exchange = Exchange(self._app, platform, caller, request.scope, self._settings.mcp_max_result_bytes)
        answer = await request_in_process(
            await self._loaded_server(), {**request.scope, SCOPE: exchange}, await request.body()
        )
        return Response(bytes(answer.body), answer.status, answer.headers)

    async def metadata(self, request: Request) -> Response:
        """Return the metadata of the protected resource (RFC 9728). This API issues the keys itself."""
        url = base_url(request, self._admit(request).http)
        tools = await self._loaded_tools()
        document = {
            "resource": url + PATH,
            "authorization_servers": [url],
            "scopes_supported": sorted({tool.scope for tool in tools.values()}),
            "bearer_methods_supported": ["header"],
            "resource_name": "Spine",
        }
        return Response(orjson.dumps(document), headers={"Cache-Control": "public, max-age=3600"}, media_type=JSON)

    def _admit(self, request: Request) -> Platform:
        """Return the platform, if requests of this Host and Origin are served. Raises NotFound, Forbidden."""
        if self._settings.mcp == "off":
            raise NotFound("there is no such path")
        platform: Platform = self._app.state.platform
        check_origin(request, self._settings, platform.http.public_url)
        return platform

    async def _authenticate(self, request: Request, platform: Platform) -> Caller:
        """Return the caller. Raises Unauthenticated with the challenge that MCP asks for, Forbidden, TooManyRequests."""
        authorization = request.headers.get("authorization")
        try:
            return await platform.authenticator.caller(
                authorization, lambda: client_site(request, platform.http.trusted_proxies)
            )
        except Unauthenticated as error:
            metadata = base_url(request, platform.http) + METADATA_PATH + PATH
            reason = 'error="invalid_token", ' if authorization else ""
            error.headers["WWW-Authenticate"] = f'Bearer {reason}resource_metadata="{metadata}"'
            raise

    async def _loaded_tools(self) -> dict[str, Tool]:
        if self._tools is None:
            async with self._loading:
                if self._tools is None:
                    document: dict[str, Any] = await asyncio.to_thread(self._app.state.documents[SUITE])
                    self._tools = read_tools(document)
        return self._tools

    async def _loaded_server(self) -> ASGIApp:
        tools = await self._loaded_tools()
        if self._server is None:
            async with self._loading:
                if self._server is None:
                    module = await asyncio.to_thread(importlib.import_module, _SERVER)
                    self._server = module.ToolServer(tools.values())
        return self._server


def _parse_error(error: InvalidBody, request_id: str) -> Response:
    """Return the refusal of a body that is no JSON, as JSON-RPC writes it, with our problem as its data."""
    problem = orjson.loads(error.body(request_id))
    refusal = {"jsonrpc": "2.0", "id": None, "error": {"code": _PARSE_ERROR, "message": error.detail, "data": problem}}
    return Response(orjson.dumps(refusal), 400, media_type=JSON)
