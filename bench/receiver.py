"""The receiver as a process: a raw protocol on uvloop, fast enough not to be what is measured.

Its paths say what becomes of a call: `/ok/…`, `/wait/<ms>/…`, `/hang/…`, `/fail/<percent>/…` (by id, at its first call
only), `/close/…` (answers and closes the connection). It keeps the first time of each id for each path and counts the
rest as duplicates. It is told what to do in lines of JSON on its standard input (`bench.receivers`).
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
    """One path: its fate, and what came to it."""

    def __init__(self, name: str) -> None:
        parts = name.strip("/").split("/")
        self.fate = parts[0]
        self.number = int(parts[1]) if self.fate in {"wait", "fail"} else 0
        self.first_s: dict[bytes, float] = {}
        self.calls = 0

    def came(self, id: bytes) -> bool:
        """Note a call; answers whether it is the first of this id."""
        self.calls += 1
        if id in self.first_s:
            return False
        self.first_s[id] = time.time()
        return True


PATHS: dict[bytes, Path] = {}
CONNECTIONS: "set[Connection]" = set()


class Connection(asyncio.Protocol):
    """One connection; calls on it come one after another."""

    def __init__(self) -> None:
        self._data = b""
        self.hangs = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the way back."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own derives from nothing
        CONNECTIONS.add(self)

    def connection_lost(self, _: Exception | None) -> None:
        """Forget it."""
        CONNECTIONS.discard(self)

    def cut(self) -> None:
        """End a call that hangs."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Answer every call that is whole."""
        if self._data:
            data = self._data + data
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                break
            at = data.find(b"ontent-Length: ")
            if at < 0:
                at = data.lower().index(b"ontent-length: ")
            whole = end + 4 + int(data[at + 15 : data.index(b"\r", at)])
            if len(data) < whole:
                break
            self._answer(data)
            data = data[whole:]
        self._data = data

    def _answer(self, data: bytes) -> None:
        name = data[5 : data.index(b" ", 5)]
        path = PATHS.get(name)
        if path is None:
            path = PATHS[name] = Path(name.decode())
        at = data.index(_ID) + len(_ID)
        id = data[at : at + _ID_LENGTH]
        first = path.came(id)
        fate = path.fate
        if fate == "ok":
            self._transport.write(_OK)
        elif fate == "wait":
            asyncio.get_running_loop().call_later(path.number / 1000, self._reply, _OK)
        elif fate == "fail":
            self._transport.write(_FAILED if first and zlib.crc32(id) % 100 < path.number else _OK)
        elif fate == "close":
            self._transport.write(_CLOSE)
            self._transport.close()
        else:
            self.hangs = True

    def _reply(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)


def _do(order: dict[str, str]) -> object:
    what = order["do"]
    if what == "reset":
        PATHS.clear()
    elif what == "cut":
        for connection in [one for one in CONNECTIONS if one.hangs]:
            connection.cut()
    elif what == "dump":
        return {
            name.decode(): {id.decode(): at for id, at in path.first_s.items()}
            for name, path in PATHS.items()
            if name.startswith(order["under"].encode())
        }
    return {
        "calls": sum(path.calls for path in PATHS.values()),
        "first": sum(len(path.first_s) for path in PATHS.values()),
    }


async def main(tls_files: list[str]) -> None:
    """Serve until standard input ends; the first line out is the port."""
    loop = asyncio.get_running_loop()
    tls = None
    if tls_files:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*tls_files)
    server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=4096, ssl=tls)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), os.fdopen(0, "rb", 0))
    while line := await orders.readline():
        answer = orjson.dumps(_do(orjson.loads(line)))
        sys.stdout.buffer.write(len(answer).to_bytes(8, "big") + answer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    gc.disable()  # nothing here makes circles, and the ids are many
    uvloop.run(main(sys.argv[1:]))
