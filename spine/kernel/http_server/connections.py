"""The connections of one API process: how many there are, by address, and how long each may wait for its client.

At a limit the connection that has waited longest for its client makes room: half-sent requests and idle connections go
before anybody is refused. One sweep a second compares deadlines, which costs a request nothing.
"""

import asyncio
import time
from collections.abc import Iterable
from typing import Final, Protocol

from spine.kernel.client_address import is_in, parse_address, site_of
from spine.kernel.errors import SpineError, TooManyRequests, Unavailable
from spine.kernel.settings import HttpSettings

_SWEEP_S: Final = 1.0
_RESERVED: Final = 32
"""Connections beyond the limit for clients of this machine, such as health checks."""


class Connection(Protocol):
    """What is asked of a connection."""

    client: tuple[str, int] | None
    read_deadline: float
    """The time by which the client must have sent what it began; infinite while the server has work to do."""

    @property
    def write_deadline(self) -> float:
        """The time by which the client must have taken what was sent to it."""
        ...

    @property
    def reading(self) -> bool:
        """True if bytes of the client are read as they arrive."""
        ...

    def expire(self) -> None:
        """End the connection for its client's slowness."""
        ...

    def drop(self) -> None:
        """Close the connection at once."""
        ...


class Connections:
    """Counts connections, refuses those beyond a limit and ends those that are too slow."""

    def __init__(self, settings: HttpSettings) -> None:
        self.settings = settings
        self._by_site: dict[str, set[Connection]] = {}
        self._all: set[Connection] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self.stopping = asyncio.Event()
        """Set when the server begins to stop. Answers without an end, such as streams, end then (`spine.stopping`)."""

    def __len__(self) -> int:
        return len(self._all)

    def add(self, connection: Connection) -> SpineError | None:
        """Count a connection. Returns the error for one that cannot be taken."""
        host = connection.client[0] if connection.client is not None else ""
        site, settings = site_of(host), self.settings
        same_site = self._by_site.get(site, set())
        if (
            len(same_site) >= settings.max_connections_per_address
            and not is_in(host, settings.trusted_proxies)
            and not self._drop_longest_waiting(same_site)
        ):
            return TooManyRequests(
                f"this address has its {settings.max_connections_per_address} connections; use those again",
                retry_after_s=1,
                code="too_many_connections",
            )
        address = parse_address(host)
        limit = settings.max_connections + (_RESERVED if address is not None and address.is_loopback else 0)
        if len(self._all) >= limit and not self._drop_longest_waiting(self._all):
            return Unavailable("all connections are in use; try again in a moment")
        self._all.add(connection)
        self._by_site.setdefault(site, set()).add(connection)
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)
        return None

    def discard(self, connection: Connection) -> None:
        """Count a connection no longer."""
        if connection not in self._all:
            return
        self._all.discard(connection)
        site = site_of(connection.client[0] if connection.client is not None else "")
        same_site = self._by_site[site]
        same_site.discard(connection)
        if not same_site:
            del self._by_site[site]

    def _drop_longest_waiting(self, connections: Iterable[Connection]) -> bool:
        """Drop the connection whose client should have sent something first. Returns False if all have work to do."""
        longest = min(connections, key=lambda connection: connection.read_deadline)
        if longest.read_deadline == float("inf"):
            return False
        self.discard(longest)
        longest.drop()
        return True

    def _sweep(self) -> None:
        now = time.monotonic()
        for connection in list(self._all):
            if now > connection.write_deadline:
                connection.drop()
            elif now > connection.read_deadline and connection.reading:
                connection.expire()
        self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep) if self._all else None
