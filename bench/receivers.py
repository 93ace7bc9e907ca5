"""Handles of the two processes that stand outside of Spine: the receiver, and the bare client loop."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.process import Process, start


class Receiver:
    """A receiver process. Paths are those of `bench.receiver`."""

    def __init__(self, log: Path, tls: tuple[Path, Path] | None = None) -> None:
        files = [str(path) for path in tls or ()]
        self.process: Process = start("receiver", [sys.executable, "-m", "bench.receiver", *files], log, pipes=True)
        self.port = int(self.process.read_line())
        self._scheme = "https" if tls else "http"

    def url(self, path: str) -> str:
        """Where a path is called."""
        return f"{self._scheme}://127.0.0.1:{self.port}{path}"

    def urls(self, kind: str, count: int) -> list[str]:
        """So many paths of one kind."""
        return [self.url(f"/{kind}/{n}") for n in range(count)]

    async def _ask(self, **order: str) -> Any:
        return await asyncio.to_thread(self.process.ask, order)

    async def reset(self) -> None:
        """Forget every call."""
        await self._ask(do="reset")

    async def cut(self) -> None:
        """End the calls that hang."""
        await self._ask(do="cut")

    async def first(self) -> int:
        """Different ids so far, summed over the paths."""
        return int((await self._ask(do="count"))["first"])

    async def duplicates(self) -> int:
        """Calls so far that brought an id again to the same path."""
        found = await self._ask(do="count")
        return int(found["calls"] - found["first"])

    async def times(self, under: str = "/") -> dict[str, dict[str, float]]:
        """Of each path below `under`: when each id came first, in seconds since the epoch."""
        found: dict[str, dict[str, float]] = await self._ask(do="dump", under=under)
        return found


class Bare:
    """The bare client loop."""

    def __init__(self, log: Path, ca_file: Path | None = None) -> None:
        files = [str(ca_file)] if ca_file else []
        self.process = start("bare", [sys.executable, "-m", "bench.bare", *files], log, pipes=True)

    async def rate(self, urls: Sequence[str], calls: int, at_once: int, body_bytes: int) -> tuple[float, float]:
        """Calls per second, and CPU microseconds of each."""
        order = {"urls": list(urls), "calls": calls, "at_once": at_once, "body_bytes": body_bytes}
        found = await asyncio.to_thread(self.process.ask, order)
        return calls / found["seconds"], found["cpu_s"] / calls * 1e6
