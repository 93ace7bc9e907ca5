"""A proxy in front of Redis that can freeze: it still accepts connections and takes bytes, and answers nothing."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit


class FreezingProxy:
    """Passes bytes between its clients and a Redis, unless it is frozen."""

    def __init__(self, upstream_url: str) -> None:
        self._upstream = urlsplit(upstream_url)
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._connections: set[asyncio.Task[None]] = set()
        self.accepted = 0
        self.port = 0

    @property
    def url(self) -> str:
        """The URL of the Redis behind this proxy."""
        return f"redis://127.0.0.1:{self.port}/0"

    def freeze(self) -> None:
        """Answer nothing from now on."""
        self._thawed.clear()

    def thaw(self) -> None:
        """Answer again."""
        self._thawed.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either side closes it."""
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self._thawed.wait()
            if self._upstream.scheme == "unix":
                upstream = await asyncio.open_unix_connection(self._upstream.path)
            else:
                upstream = await asyncio.open_connection(self._upstream.hostname, self._upstream.port)
            try:
                await asyncio.gather(self._pass(reader, upstream[1]), self._pass(upstream[0], writer))
            finally:
                upstream[1].close()
        writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            await self._thawed.wait()
            writer.write(data)
            await writer.drain()
        writer.close()

    async def close(self) -> None:
        """Close all connections."""
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)


@asynccontextmanager
async def freezing_proxy(upstream_url: str) -> AsyncIterator[FreezingProxy]:
    """Run a proxy in this loop."""
    proxy = FreezingProxy(upstream_url)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
