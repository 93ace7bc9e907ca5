"""Raw connections to a server: floods, half-sent requests, and what comes back."""

import json
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

MIB: Final = 1024 * 1024
WAIT_S: Final = 30.0
GET: Final = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
POST: Final = b"POST /v1/signup HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
_CHUNKED: Final = POST + b"Transfer-Encoding: chunked\r\n\r\n"
FLOODS: Final = {
    "header": (GET + b"X-Long: ", b"a" * 65536),
    "headers": (GET, b"X-Many: a\r\n" * 4096),
    "url": (b"GET /", b"a" * 65536),
    "empty-lines": (b"", b"\r\n" * 32768),
    "trailer": (_CHUNKED + b"0\r\nX-Trailer: ", b"a" * 65536),
    "trailers": (_CHUNKED + b"0\r\n", b"X-Trailer: a\r\n" * 4096),
    "chunk-extension": (_CHUNKED + b"1;", b"a" * 65536),
}
"""The starts of requests, and what is repeated after them without an end."""


@contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    """A connection to a server."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=WAIT_S) as connection:
        yield connection


def flood(connection: socket.socket, piece: bytes, total: int) -> int:
    """Send up to `total` bytes. Returns how many the server took before it closed or stopped reading for a while."""
    sent = 0
    connection.settimeout(1)
    try:
        while sent < total:
            sent += connection.send(piece)
    except OSError:
        pass
    connection.settimeout(WAIT_S)
    return sent


def read_all(connection: socket.socket) -> bytes:
    """Everything until the server closes the connection."""
    found = b""
    try:
        while data := connection.recv(65536):
            found += data
    except ConnectionResetError:
        pass
    return found


def answers(found: bytes) -> list[tuple[int, Any]]:
    """The statuses and bodies of the responses, which all have a Content-Length."""
    parsed = []
    while found:
        head, _, rest = found.partition(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        parsed.append((int(head[9:12]), json.loads(rest[:size])))
        found = rest[size:]
    return parsed


def closed(connection: socket.socket) -> bool:
    """True if the server has closed the connection, or closes it within the time."""
    return bool(select.select([connection], [], [], WAIT_S)[0]) and read_all(connection) is not None
