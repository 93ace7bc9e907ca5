"""Where checked addresses come from, and the last look before a socket is opened.

The resolver hands aiohttp permitted addresses only, and aiohttp connects to what it was handed: there is no second
resolution that an attacker's name server could answer differently. Address literals pass no resolver, so the socket
factory judges every address again; it is the one place that no call can go round.
"""

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult

AddressInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[str, int]] | tuple[
    int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[str, int, int, int]
]  # fmt: skip
Lookup = Callable[[str], Awaitable[list[str]]]
"""All addresses of a host name, as text; OSError when there are none."""
Judge = Callable[[str], str | None]
"""Why an address may not be called; None when it may."""

LOOKUP_THREADS: Final = 32
"""Enough that a few dead name servers, at some seconds a name, do not hold up the names of others."""

_NUMERIC: Final = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


class AddressBlockedError(OSError):
    """The address is not a permitted target."""

    def __init__(self, address: str, why: str) -> None:
        super().__init__(errno.EACCES, f"{address} is {why}")


class SystemLookup:
    """getaddrinfo in threads of its own; the loop's shared pool would let slow names block everything else."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(LOOKUP_THREADS, "resolve")

    async def __call__(self, host: str) -> list[str]:
        """The addresses of a host in the system's order of preference."""
        found = await asyncio.get_running_loop().run_in_executor(self._threads, _getaddrinfo, host)
        return list(dict.fromkeys(str(info[4][0]) for info in found))

    def close(self) -> None:
        """Give the threads up; a lookup under way ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class GuardedResolver(AbstractResolver):
    """Resolves a name to its permitted addresses; blocked when none is left.

    The others are dropped and not held against it: with IPv4 loopback opened, `localhost` is also ::1.
    """

    def __init__(self, lookup: Lookup, judge: Judge) -> None:
        self._lookup = lookup
        self._judge = judge

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """As aiohttp asks; OSError when there is no address, AddressBlockedError when there is no permitted one."""
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
        """Nothing is held here; the lookup belongs to the door."""


def guarded_sockets(judge: Judge) -> Callable[[AddressInfo], socket.socket]:
    """A socket factory that refuses to open a socket to an address that the judge blocks."""

    def open_socket(info: AddressInfo) -> socket.socket:
        family, kind, proto, _, peer = info
        why = judge(peer[0])
        if why is not None:
            raise AddressBlockedError(peer[0], why)
        return socket.socket(family, kind, proto)

    return open_socket


def _getaddrinfo(host: str) -> list[tuple[int, int, int, str, tuple[str | int, ...]]]:
    return list(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))  # type: ignore[arg-type]


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
