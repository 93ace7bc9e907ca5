"""Which addresses a call may go to: the outside, and what the operator has opened (webhooks.md, promise 6)."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# IANA special-purpose registries, spelled out: `is_global` of the standard library changed its mind between releases.
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
    """Why no call may go to this address, in a word or two; None when it may.

    An IPv4-mapped or NAT64 address is judged as the IPv4 address that it stands for, and opened as such too. The other
    forms that carry an IPv4 address (compatible, translated, 6to4, Teredo, NAT64 for local use) lead through relays
    nobody vouches for: they are closed whatever they carry, unless the operator opens their own range.
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
    """`blocked` for an address as text, such as a resolver gives; what is not an address is blocked."""
    try:
        address = ip_address(text)
    except ValueError:
        return "not an address"
    return blocked(address, allow)


def opened(text: str, allow: Sequence[Network]) -> bool:
    """Whether the operator's list covers this address, so that plain http is good enough for it."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    return in_networks(address, allow) or in_networks(_unwrapped(address), allow)


def in_networks(address: Address, networks: Sequence[Network]) -> bool:
    """Whether any of the networks holds the address; those of the other IP version do not."""
    return any(address in network for network in networks)


def _unwrapped(address: Address) -> Address:
    """The address that a packet to this one ends at."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return IPv6Address(int(address))  # without a zone id, which no network can hold
