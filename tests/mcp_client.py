"""Clients of /mcp: the official one, and JSON-RPC by hand for one request."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.api import TLS

NEWEST: Final = "2026-07-28"
_META: Final = "io.modelcontextprotocol/"


@asynccontextmanager
async def connect(url: str, key: str, mode: str = "auto") -> AsyncIterator[Client]:
    """Yield the official client. `mode` is `auto`, `legacy` (the handshake of older revisions) or a revision."""
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=30, trust_env=False, verify=TLS) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http), mode=mode) as client,
    ):
        yield client


def rpc(url: str, key: str | None, method: str, path: str = "/mcp", /, **params: Any) -> httpx.Response:
    """Send one request of the newest revision, with the headers and the `_meta` that it demands."""
    headers = {"MCP-Protocol-Version": NEWEST, "Mcp-Method": method, "Accept": "application/json, text/event-stream"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    if "name" in params:
        headers["Mcp-Name"] = params["name"]
    meta = {
        _META + "protocolVersion": NEWEST,
        _META + "clientInfo": {"name": "tests", "version": "1"},
        _META + "clientCapabilities": {},
    }
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
    with httpx.Client(base_url=url, trust_env=False, timeout=30, verify=TLS) as http:
        return http.post(path, json=message, headers=headers)


def call(url: str, key: str, tool: str, /, **arguments: Any) -> dict[str, Any]:
    """Call a tool with one request of the newest revision. Returns the result."""
    answer = rpc(url, key, "tools/call", name=tool, arguments=arguments)
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()["result"]
    return result
