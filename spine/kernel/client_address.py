"""The address that a limit per client counts by: the peer's or, behind a trusted proxy, the one that the proxy names."""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from starlette.requests import Request

_SITE_BITS: Final = 64
_FORWARDED: Final = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")
"""Headers that proxies add."""

Networks = Sequence[IPv4Network | IPv6Network]


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address, an IPv4 one if it is mapped into IPv6; None for a text that is none, such as a socket's path."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def site_of(host: str) -> str:
    """Return what a limit counts by: an IPv4 address, or the /64 of an IPv6 one, which belongs to one site (RFC 6177)."""
    address = parse_address(host)
    if isinstance(address, IPv6Address):
        return str(IPv6Network((int(address) >> _SITE_BITS << _SITE_BITS, _SITE_BITS)))
    return str(address or host)


def is_in(host: str, networks: Networks) -> bool:
    """True if the host is an address of one of the networks."""
    address = parse_address(host)
    return address is not None and any(address in network for network in networks)


def client_site(request: Request, trusted_proxies: Networks) -> str:
    """Return the site of the client. X-Forwarded-For counts only as far as trusted proxies wrote it, from the right."""
    host = request.client.host if request.client is not None else ""
    for named in reversed(_named_clients(request.headers.getlist("x-forwarded-for"))):
        if not is_in(host, trusted_proxies) or parse_address(named) is None:
            break
        host = named
    return site_of(host)


def _named_clients(values: Iterable[str]) -> list[str]:
    return [part.strip() for value in values for part in value.split(",")]


def is_local(request: Request, trusted_proxies: Networks) -> bool:
    """True if the peer is a process of this machine, and nothing says that it is a proxy."""
    address = parse_address(request.client.host) if request.client is not None else None
    proxied = bool(trusted_proxies) or any(name in request.headers for name in _FORWARDED)
    return address is not None and address.is_loopback and not proxied
