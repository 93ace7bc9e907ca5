"""An agent: calls tools at /mcp with the official client."""

import asyncio
import uuid
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from spine.cli.errors import Failure


class Agent:
    """Calls tools with a key of its own. Each call stands alone, so any API process can answer it."""

    def __init__(self, url: str, key: str) -> None:
        self._url = f"{url}/mcp"
        self._headers = {"Authorization": f"Bearer {key}"}

    def tools(self) -> list[str]:
        """Return the names of the tools that the key may call."""
        return asyncio.run(self._tools())

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool that reads. Returns its structured content. Raises Failure with the problem that it reports."""
        return asyncio.run(self._call(tool, arguments))

    def change(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool that changes something, under a new idempotency key."""
        return self.call(tool, **arguments, idempotency_key=f"agent-{uuid.uuid4()}")

    async def _tools(self) -> list[str]:
        async with (
            httpx2.AsyncClient(headers=self._headers, trust_env=False) as http,
            Client(streamable_http_client(self._url, http_client=http)) as client,
        ):
            return [tool.name for tool in (await client.list_tools()).tools]

    async def _call(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        async with (
            httpx2.AsyncClient(headers=self._headers, trust_env=False, timeout=30) as http,
            Client(streamable_http_client(self._url, http_client=http)) as client,
        ):
            result = await client.call_tool(tool, arguments)
        content: dict[str, Any] = result.structured_content or {}
        if result.is_error:
            raise Failure(f"the tool {tool} refused: {content.get('detail')} ({content.get('code')})", problem=content)
        return content
