"""The receiver as a process: a raw protocol on uvloop, fast enough not to limit the measurement.

The path scripts the outcome of a call: `/ok/…`, `/wait/<ms>/…`, `/hang/…`, `/fail/<percent>/…` (by id, at its first call
only), `/close/…` (responds and closes the connection). It records the first time of each id for each path and counts the
others as duplicates. It reads requests as lines of JSON from standard input (`bench.receivers`).
"""

import asyncio
import gc
import os
import ssl
import sys
import time
import zlib
from typing import cast

import orjson
import uvloop

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_CLOSE = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_FAILED = b"HTTP/1.1 500 Failed\r\nContent-Length: 0\r\n\r\n"
_ID = b"webhook-id: "
_ID_LENGTH = 30


class Path:
    """One path: its scripted outcome and its calls."""

    def __init__(self, name: str) -> None:
        parts = name.strip("/").split("/")
        self.outcome = parts[0]
        self.number = int(parts[1]) if self.outcome in {"wait", "fail"} else 0
        self.first_s: dict[bytes, float] = {}
        self.calls = 0

    def record(self, id: bytes) -> bool:
        """Record a call. Returns True if it is the first call of this id."""
        self.calls += 1
        if id in self.first_s:
            return False
        self.first_s[id] = time.time()
        return True


PATHS: dict[bytes, Path] = {}
CONNECTIONS: "set[Connection]" = set()


class Connection(asyncio.Protocol):
    """One connection, with one call at a time."""

    def __init__(self) -> None:
        self._data = b""
        self.hangs = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport for responses."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transport has no base class
        CONNECTIONS.add(self)

    def connection_lost(self, _: Exception | None) -> None:
        """Remove the connection."""
        CONNECTIONS.discard(self)

    def cut(self) -> None:
        """Abort the connection of a hanging call."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Respond to every complete request."""
        if self._data:
            data = self._data + data
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                break
            at = data.find(b"ontent-Length: ")
            if at < 0:
                at = data.lower().index(b"ontent-length: ")
            length = end + 4 + int(data[at + 15 : data.index(b"\r", at)])
            if len(data) < length:
                break
            self._answer(data)
            data = data[length:]
        self._data = data

    def _answer(self, data: bytes) -> None:
        name = data[5 : data.index(b" ", 5)]
        path = PATHS.get(name)
        if path is None:
            path = PATHS[name] = Path(name.decode())
        at = data.index(_ID) + len(_ID)
        id = data[at : at + _ID_LENGTH]
        first = path.record(id)
        outcome = path.outcome
        if outcome == "ok":
            self._transport.write(_OK)
        elif outcome == "wait":
            asyncio.get_running_loop().call_later(path.number / 1000, self._reply, _OK)
        elif outcome == "fail":
            self._transport.write(_FAILED if first and zlib.crc32(id) % 100 < path.number else _OK)
        elif outcome == "close":
            self._transport.write(_CLOSE)
            self._transport.close()
        else:
            self.hangs = True

    def _reply(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)


def _handle(request: dict[str, str]) -> object:
    action = request["do"]
    if action == "reset":
        PATHS.clear()
    elif action == "cut":
        for connection in [each for each in CONNECTIONS if each.hangs]:
            connection.cut()
    elif action == "dump":
        return {
            name.decode(): {id.decode(): at for id, at in path.first_s.items()}
            for name, path in PATHS.items()
            if name.startswith(request["under"].encode())
        }
    return {
        "calls": sum(path.calls for path in PATHS.values()),
        "first": sum(len(path.first_s) for path in PATHS.values()),
    }


async def main(tls_files: list[str]) -> None:
    """Serve until standard input ends. The first line of output is the port."""
    loop = asyncio.get_running_loop()
    tls = None
    if tls_files:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*tls_files)
    server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=4096, ssl=tls)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    requests = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(requests), os.fdopen(0, "rb", 0))
    while line := await requests.readline():
        answer = orjson.dumps(_handle(orjson.loads(line)))
        sys.stdout.buffer.write(len(answer).to_bytes(8, "big") + answer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    gc.disable()  # no cyclic garbage is created, and a collection would scan all ids
    uvloop.run(main(sys.argv[1:]))
