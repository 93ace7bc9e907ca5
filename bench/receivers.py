"""Handles of the two processes that are not part of Spine: the receiver and the bare client loop."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.process import Process, start


class Receiver:
    """A receiver process, with the paths of `bench.receiver`."""

    def __init__(self, log: Path, tls: tuple[Path, Path] | None = None) -> None:
        files = [str(path) for path in tls or ()]
        self.process: Process = start("receiver", [sys.executable, "-m", "bench.receiver", *files], log, pipes=True)
        self.port = int(self.process.read_line())
        self._scheme = "https" if tls else "http"

    def url(self, path: str) -> str:
        """Return the URL of a path."""
        return f"{self._scheme}://127.0.0.1:{self.port}{path}"

    def urls(self, kind: str, count: int) -> list[str]:
        """Return the URLs of `count` paths of one kind."""
        return [self.url(f"/{kind}/{n}") for n in range(count)]

    async def _request(self, **request: str) -> Any:
        return await asyncio.to_thread(self.process.request, request)

    async def reset(self) -> None:
        """Delete the record of all calls."""
        await self._request(do="reset")

    async def cut(self) -> None:
        """Abort the connections of hanging calls."""
        await self._request(do="cut")

    async def first(self) -> int:
        """Return the number of different ids per path, summed over the paths."""
        return int((await self._request(do="count"))["first"])

    async def duplicates(self) -> int:
        """Return the number of calls that repeated an id on the same path."""
        found = await self._request(do="count")
        return int(found["calls"] - found["first"])

    async def times(self, under: str = "/") -> dict[str, dict[str, float]]:
        """Return for each path below `under` the time of the first call of each id, in seconds since the epoch."""
        found: dict[str, dict[str, float]] = await self._request(do="dump", under=under)
        return found


class BareClient:
    """The process of the bare client loop."""

    def __init__(self, log: Path, ca_file: Path | None = None) -> None:
        files = [str(ca_file)] if ca_file else []
        self.process = start("bare", [sys.executable, "-m", "bench.bare_client", *files], log, pipes=True)

    async def rate(self, urls: Sequence[str], calls: int, at_once: int, body_bytes: int) -> tuple[float, float]:
        """Return the calls per second and the CPU microseconds per call."""
        request = {"urls": list(urls), "calls": calls, "at_once": at_once, "body_bytes": body_bytes}
        found = await asyncio.to_thread(self.process.request, request)
        return calls / found["seconds"], found["cpu_s"] / calls * 1e6
