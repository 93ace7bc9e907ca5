"""Decides which IP addresses may be called: public ones and the operator's allow list (webhooks.md, promise 6)."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Copied from the IANA special-purpose registries: `is_global` of the standard library differs between releases.
_CLOSED: Final[tuple[tuple[str, tuple[Network, ...]], ...]] = tuple(
    (why, tuple(ip_network(text) for text in texts))
    for why, texts in (
        ("metadata", ("169.254.169.254/32", "168.63.129.16/32", "100.100.100.200/32", "fd00:ec2::254/128")),
        ("loopback", ("127.0.0.0/8", "::1/128")),
        ("unspecified", ("0.0.0.0/8", "::/128")),
        ("private", ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fec0::/10")),
        ("link-local", ("169.254.0.0/16", "fe80::/10")),
        ("carrier-grade NAT", ("100.64.0.0/10",)),
        ("multicast", ("224.0.0.0/4", "ff00::/8")),
        ("documentation", ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20")),
        ("benchmark", ("198.18.0.0/15", "2001:2::/48")),
        ("Teredo", ("2001::/32",)),
        ("6to4", ("2002::/16", "192.88.99.0/24")),
        ("NAT64 for local use", ("64:ff9b:1::/48",)),
        ("IPv4-compatible", ("::/96",)),
        ("IPv4-translated", ("::ffff:0:0:0/96",)),
        ("reserved", ("192.0.0.0/24", "240.0.0.0/4", "2001::/23")),
    )
)
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
_NAT64: Final = IPv6Network("64:ff9b::/96")


def blocked(address: Address, allow: Sequence[Network] = ()) -> str | None:
    """Return why this address must not be called, in one or two words; None if it may be called.

    An IPv4-mapped or NAT64 address is judged as the IPv4 address that it contains, also against `allow`. The other
    forms that contain an IPv4 address (compatible, translated, 6to4, Teredo, NAT64 for local use) go through relays
    without a responsible operator. They are blocked for every address, unless `allow` contains their own range.
    """
    target = _unwrapped(address)
    if in_networks(address, allow) or in_networks(target, allow):
        return None
    for why, networks in _CLOSED:
        if in_networks(target, networks):
            return why
    if isinstance(target, IPv6Address) and target not in _GLOBAL_UNICAST:
        return "not global unicast"
    return None


def blocked_text(text: str, allow: Sequence[Network] = ()) -> str | None:
    """Apply `blocked` to an address as text, as a resolver returns it. Text that is not an address is blocked."""
    try:
        address = ip_address(text)
    except ValueError:
        return "not an address"
    return blocked(address, allow)


def opened(text: str, allow: Sequence[Network]) -> bool:
    """Return True if the operator's allow list contains this address, so that plain http may be used."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    return in_networks(address, allow) or in_networks(_unwrapped(address), allow)


def in_networks(address: Address, networks: Sequence[Network]) -> bool:
    """Return True if any of the networks contains the address. Networks of the other IP version never do."""
    return any(address in network for network in networks)


def _unwrapped(address: Address) -> Address:
    """Return the address that receives a packet sent to this address."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return IPv6Address(int(address))  # without a zone id, because no network contains one
