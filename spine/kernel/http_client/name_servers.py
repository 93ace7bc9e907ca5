"""Asks for the addresses of a host name as the system does: /etc/hosts, then the name servers of /etc/resolv.conf.

Unlike getaddrinfo, a question takes no thread, and it ends at its deadline.
"""

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.message
import dns.nameserver
import dns.query
import dns.rdatatype
import dns.resolver

from policies.url_targets import LOCALHOST_ADDRESSES, is_localhost
from spine.kernel.http_client.errors import LOCAL_ERRNO

MAX_ADDRESSES: Final = 32
"""Addresses that are kept of one name."""

_HOSTS: Final = Path("/etc/hosts")
_RESOLV_CONF: Final = Path("/etc/resolv.conf")
_DNS_PORT: Final = 53
_TRIES: Final = 3
# Parsing 64 KiB, the most that TCP carries, would block the event loop for 0.1 s. This is room for 250 addresses.
_MAX_ANSWER_BYTES: Final = 4096
# Once a name has an IPv4 address, the wait for its IPv6 addresses (RFC 8305, 3, the "Resolution Delay").
_IPV6_DELAY_S: Final = 0.05


class NameNotFoundError(socket.gaierror):
    """The name does not exist, or has no address: its name servers say so."""

    def __init__(self, host: str) -> None:
        super().__init__(socket.EAI_NONAME, f"{host} has no address")


class NameServersFailedError(socket.gaierror):
    """No name server has answered in time, or none of them knows."""

    def __init__(self, host: str) -> None:
        super().__init__(socket.EAI_AGAIN, f"no answer about {host}")


@dataclass(frozen=True, slots=True)
class Answer:
    """The addresses of a name, and for how many seconds they hold. Of a file or a literal they hold for 0 s."""

    addresses: tuple[str, ...]
    ttl_s: float


class NameServers:
    """The name servers of this machine, or `servers`, each an address or `address:port`."""

    def __init__(self, servers: Sequence[tuple[str, int]], timeout_s: float) -> None:
        self._servers = servers
        self._timeout_s = timeout_s
        self._read_at: tuple[int, int] | None = None
        self._hosts: dict[str, tuple[str, ...]] = {}
        self._backend = dns.asyncbackend.get_backend("asyncio")

    async def ask(self, host: str) -> Answer:
        """Return the addresses of a host, IPv4 first. Raises NameNotFoundError, NameServersFailedError."""
        name = host.lower().removesuffix(".")
        if _is_address(host):
            return Answer((host,), 0)
        if is_localhost(name):
            return Answer(LOCALHOST_ADDRESSES, 0)
        self._read_files()
        if name in self._hosts:
            return Answer(self._hosts[name], 0)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._ask_both(host)
        except TimeoutError as error:
            raise NameServersFailedError(host) from error

    async def _ask_both(self, host: str) -> Answer:
        v4 = asyncio.create_task(self._ask_one(host, dns.rdatatype.A))
        v6 = asyncio.create_task(self._ask_one(host, dns.rdatatype.AAAA))
        try:
            await asyncio.wait({v4})
            await asyncio.wait({v6}, timeout=None if v4.exception() else _IPV6_DELAY_S)
        finally:
            v4.cancel()
            v6.cancel()
            outcomes = await asyncio.gather(v4, v6, return_exceptions=True)
        answers = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
        if not answers:
            errors = [outcome for outcome in outcomes if isinstance(outcome, OSError)]
            raise next((error for error in errors if not isinstance(error, NameNotFoundError)), errors[0])
        addresses = tuple(address for answer in answers for address in answer.addresses)
        return Answer(addresses[:MAX_ADDRESSES], min(answer.ttl_s for answer in answers))

    async def _ask_one(self, host: str, kind: dns.rdatatype.RdataType) -> Answer:
        try:
            found = await self._resolver.resolve(
                host, kind, search=True, lifetime=self._timeout_s, backend=self._backend
            )
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer) as error:
            raise NameNotFoundError(host) from error
        except dns.exception.DNSException as error:
            for _, _, _, cause, _ in error.kwargs.get("errors", ()):
                if isinstance(cause, OSError) and cause.errno in LOCAL_ERRNO:
                    raise cause from error
            raise NameServersFailedError(host) from error
        return Answer(tuple(record.address for record in found), found.chaining_result.minimum_ttl)

    def _read_files(self) -> None:
        """Read the two files if they have changed: addresses move while the process runs."""
        changed_at = _changed_at(_HOSTS), _changed_at(_RESOLV_CONF)
        if changed_at == self._read_at:
            return
        self._hosts = _read_hosts()
        self._resolver = _read_resolv_conf() if not self._servers else dns.asyncresolver.Resolver(configure=False)
        servers = self._servers or [(str(address), _DNS_PORT) for address in self._resolver.nameservers]
        self._resolver.nameservers = [_BoundedServer(address, port) for address, port in servers]
        self._resolver.timeout = self._timeout_s / _TRIES
        self._read_at = changed_at


class _BoundedServer(dns.nameserver.Do53Nameserver):
    """A name server whose long answers, which come over TCP, are refused above a limit."""

    async def async_query(self, request: dns.message.QueryMessage, *args: Any, **options: Any) -> dns.message.Message:
        if not options["max_size"]:
            return await super().async_query(request, *args, **options)
        async with asyncio.timeout(options["timeout"]):
            reader, writer = await asyncio.open_connection(self.address, self.port)
            try:
                question = request.to_wire()
                writer.write(len(question).to_bytes(2) + question)
                size = int.from_bytes(await reader.readexactly(2))
                if size > _MAX_ANSWER_BYTES:
                    raise EOFError(f"an answer of {size} bytes")  # dnspython asks no more of this server then
                response = dns.message.from_wire(await reader.readexactly(size))
            finally:
                writer.close()
        if not request.is_response(response):
            raise dns.query.BadResponse
        return response


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _changed_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _read_hosts() -> dict[str, tuple[str, ...]]:
    """Return the addresses of each name in /etc/hosts (hosts(5))."""
    hosts: dict[str, tuple[str, ...]] = {}
    try:
        lines = _HOSTS.read_text(errors="replace").splitlines()
    except OSError:
        return hosts
    for line in lines:
        address, *names = line.partition("#")[0].split() or [""]
        if _is_address(address):
            for name in names:
                hosts[name.lower()] = (*hosts.get(name.lower(), ()), address)
    return hosts


def _read_resolv_conf() -> dns.asyncresolver.Resolver:
    resolver = dns.asyncresolver.Resolver(configure=False)
    try:
        resolver.read_resolv_conf(_RESOLV_CONF)
    except dns.resolver.NoResolverConfiguration:
        resolver.nameservers = ["127.0.0.1"]  # as resolv.conf(5) says
    return resolver
