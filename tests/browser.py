"""A real Chromium without a window, driven over its DevTools protocol. Tests that use it are skipped where there is none."""

import asyncio
import base64
import contextlib
import itertools
import json
import re
import shutil
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

PROGRAM: Final = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(PROGRAM is None, reason="needs Chromium")
_FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)
_TIMEOUT_S: Final = 60


class Page:
    """One tab: what it requested, and what it complained of."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._ids = itertools.count(1)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        """Errors of scripts, and what the Content-Security-Policy forbade."""
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self._socket:
            said = json.loads(message.data)
            parameters = said.get("params", {})
            match said.get("method"):
                case None:
                    self._answers.pop(said["id"]).set_result(said)
                case "Network.requestWillBeSent":
                    self.requests.append(parameters["request"]["url"])
                case "Log.entryAdded":
                    self.complaints.append(parameters["entry"]["text"])
                case "Runtime.exceptionThrown":
                    self.complaints.append(str(parameters["exceptionDetails"]))

    async def send(self, method: str, **parameters: Any) -> Any:
        """Run a command of the protocol; return its result."""
        id = next(self._ids)
        answer = self._answers[id] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": id, "method": method, "params": parameters})
        said = await asyncio.wait_for(answer, _TIMEOUT_S)
        assert "error" not in said, said
        return said["result"]

    async def evaluate(self, script: str) -> Any:
        """Return the value of an expression in the page."""
        result = await self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def wait_for(self, script: str) -> Any:
        """Wait until an expression is true in the page; return its value."""
        async with asyncio.timeout(_TIMEOUT_S):
            while not (value := await self.evaluate(script)):  # noqa: ASYNC110  # the page tells nobody
                await asyncio.sleep(0.05)
        return value

    async def open(self, url: str) -> None:
        """Go to a URL, and forget what was requested before."""
        self.requests.clear()
        self.complaints.clear()
        await self.send("Page.navigate", url=url)
        await self.wait_for(f"document.readyState === 'complete' && location.href.startsWith({json.dumps(url)})")

    async def resize(self, width: int, height: int) -> None:
        """Give the page the size of another screen."""
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    async def press(self, key: str) -> None:
        """Press and release one key."""
        code = {"Tab": 9, "Enter": 13}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        for type in ("keyDown", "keyUp"):
            await self.send("Input.dispatchKeyEvent", type=type, key=key, windowsVirtualKeyCode=code, **text)

    async def screenshot(self) -> bytes:
        """Return what is seen, as PNG: to look at while a test is written."""
        picture = await self.send("Page.captureScreenshot", format="png")
        return base64.b64decode(picture["data"])

    def close(self) -> None:
        """Stop listening to the tab."""
        self._reader.cancel()


@contextlib.asynccontextmanager
async def open_browser(directory: Path) -> AsyncIterator[Page]:
    """Start Chromium with a new profile below `directory`; yield a new tab."""
    assert PROGRAM is not None
    process = await asyncio.create_subprocess_exec(
        PROGRAM, *_FLAGS, f"--user-data-dir={directory / 'profile'}", stdout=DEVNULL, stderr=PIPE
    )
    try:
        port = await _devtools_port(process)
        async with aiohttp.ClientSession(trust_env=False) as http:
            async with http.put(f"http://127.0.0.1:{port}/json/new?about:blank") as answer:
                url = (await answer.json())["webSocketDebuggerUrl"]
            async with http.ws_connect(url, max_msg_size=0) as socket:
                page = Page(socket)
                for domain in ("Page", "Network", "Log", "Runtime"):
                    await page.send(f"{domain}.enable")
                yield page
                page.close()
    finally:
        process.kill()
        await process.communicate()


async def _devtools_port(process: asyncio.subprocess.Process) -> int:
    """Read the port off what Chromium prints: "DevTools listening on ws://127.0.0.1:41234/…"."""
    assert process.stderr is not None
    async with asyncio.timeout(_TIMEOUT_S):
        async for line in process.stderr:
            found = re.search(rb"DevTools listening on ws://[^:]+:(\d+)/", line)
            if found:
                return int(found[1])
    raise RuntimeError("Chromium ended before it listened")
