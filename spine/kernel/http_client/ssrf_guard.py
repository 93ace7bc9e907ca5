"""SSRF guard: a resolver that returns permitted addresses only, and a socket factory that checks every address.

aiohttp connects to the addresses that the resolver returned: there is no second resolution that an attacker's name
server could answer differently. Address literals are not resolved, so the socket factory judges every address again. No
call can bypass the socket factory.
"""

import errno
import socket
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult

AddressInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[str, int]] | tuple[
    int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[str, int, int, int]
]  # fmt: skip
Lookup = Callable[[str], Awaitable[list[str]]]
"""Returns all addresses of a host name as text. Raises OSError if there are none."""
Judge = Callable[[str], str | None]
"""Returns why an address must not be called; None if it may be called."""

_NUMERIC: Final = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


class AddressBlockedError(OSError):
    """The address must not be called."""

    def __init__(self, address: str, why: str) -> None:
        super().__init__(errno.EACCES, f"{address} is {why}")


class GuardedResolver(AbstractResolver):
    """Resolves a name to its permitted addresses.

    Addresses that are not permitted are dropped; they do not block the name. For example, `localhost` also resolves to
    ::1 when only IPv4 loopback is allowed.
    """

    def __init__(self, lookup: Lookup, judge: Judge) -> None:
        self._lookup = lookup
        self._judge = judge

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Implement aiohttp's resolver. Raises OSError without an address, AddressBlockedError without a permitted one."""
        addresses = [text for text in await self._lookup(host) if family in {socket.AF_UNSPEC, _family(text)}]
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no address for the host")
        permitted = [address for address in addresses if self._judge(address) is None]
        if not permitted:
            raise AddressBlockedError(addresses[0], self._judge(addresses[0]) or "blocked")
        return [
            ResolveResult(hostname=host, host=address, port=port, family=_family(address), proto=0, flags=_NUMERIC)
            for address in permitted
        ]

    async def close(self) -> None:
        """Do nothing: `HttpClient` closes the lookup."""


def guarded_sockets(judge: Judge) -> Callable[[AddressInfo], socket.socket]:
    """Return a socket factory that raises AddressBlockedError for an address that the judge blocks."""

    def open_socket(info: AddressInfo) -> socket.socket:
        family, kind, proto, _, peer = info
        why = judge(peer[0])
        if why is not None:
            raise AddressBlockedError(peer[0], why)
        return socket.socket(family, kind, proto)

    return open_socket


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
