"""The protocol server, with the official SDK: it lists the tools that a key may call, and calls them.

The endpoint imports this module at the first call, because the SDK takes half a second and 10 MB.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Final

from mcp.server.caching import CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError
from mcp.types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    ToolAnnotations,
)
from mcp.types import Tool as WireTool
from starlette.types import Receive, Scope, Send

from products.mcp.exchange import SCOPE, Exchange
from products.mcp.in_process import request_in_process, scope_for
from products.mcp.requests import to_request
from products.mcp.results import refusal, to_result
from products.mcp.tools import Tool
from spine import __version__
from spine.kernel.errors import SpineError

_LIST_TTL_MS: Final = 300_000
_INSTRUCTIONS: Final = (
    "The tools are the operations of Spine's API, in the workspace of the key. Tools that change something take an"
    " idempotency_key: repeat a call with the same key if its result was lost. Lists answer data, has_more and next_cursor;"
    " give next_cursor as cursor to read on. A refused call says in code, detail and param what to mend."
)


class ToolServer:
    """Serves the tools over stateless HTTP with JSON answers: no request needs another one, and no stream stays open."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        # The SDK warns of what callers send; a caller could fill the log with that.
        logging.getLogger("mcp").setLevel(logging.ERROR)
        self._tools = {tool.name: tool for tool in tools}
        self._wire = {name: _wire_tool(tool) for name, tool in self._tools.items()}
        self._server: Server[Any] = Server(
            "spine",
            version=__version__,
            title="Spine",
            instructions=_INSTRUCTIONS,
            cache_hints={"tools/list": CacheHint(ttl_ms=_LIST_TTL_MS, scope="private")},
            # No argument is mirrored in a header. Without this the SDK lists the tools before each call.
            get_tool_input_schema=lambda _: None,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Its scope holds the Exchange under SCOPE."""
        # A manager keeps the tasks of its requests. Nothing outlives a stateless request, so each one has its own.
        manager = StreamableHTTPSessionManager(self._server, json_response=True, stateless=True)
        async with manager.run():
            await manager.handle_request(scope, receive, send)

    async def _list_tools(
        self, context: ServerRequestContext[Any], _: PaginatedRequestParams | None
    ) -> ListToolsResult:
        caller = _exchange(context).caller
        return ListToolsResult(tools=[self._wire[name] for name, tool in self._tools.items() if caller.may(tool.scope)])

    async def _call_tool(self, context: ServerRequestContext[Any], params: CallToolRequestParams) -> CallToolResult:
        exchange = _exchange(context)
        tool = self._tools.get(params.name)
        try:
            if tool is None:
                await exchange.platform.limiter.take(exchange.caller.workspace_id)
                raise MCPError(INVALID_PARAMS, f"there is no tool {params.name[:100]!r}; tools/list names them")
            return await _call(exchange, tool, params.arguments or {})
        except SpineError as error:
            return refusal(error, exchange.request_id)


async def _call(exchange: Exchange, tool: Tool, arguments: Mapping[str, Any]) -> CallToolResult:
    """Call the operation with the caller's key, so that its route makes every check. Raises SpineError before that."""
    exchange.caller.require(tool.scope)
    try:
        request = to_request(tool, arguments, exchange.platform.http.max_url_bytes)
    except SpineError:
        await exchange.platform.limiter.take(exchange.caller.workspace_id)  # which the route does for all other calls
        raise
    scope = scope_for(exchange.scope, request.method, request.path, request.query, request.headers)
    answer = await request_in_process(exchange.app, scope, request.body, exchange.max_result_bytes)
    exchange.scope["spine.headers"] = {
        name: answer.headers[name] for name in ("ratelimit", "ratelimit-policy") if name in answer.headers
    }
    return to_result(tool, answer, exchange.max_result_bytes)


def _exchange(context: ServerRequestContext[Any]) -> Exchange:
    assert context.request is not None  # over HTTP there always is one
    exchange: Exchange = context.request.scope[SCOPE]
    return exchange


def _wire_tool(tool: Tool) -> WireTool:
    return WireTool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=tool.input_schema,
        output_schema=tool.output_schema,
        annotations=ToolAnnotations(
            read_only_hint=tool.read_only,
            destructive_hint=not (tool.read_only or tool.creates),
            idempotent_hint=True,  # reads are, and the others take a key
        ),
        _meta={"scope": tool.scope},
    )
