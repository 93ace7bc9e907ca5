"""Laws of the IP addresses that may be called."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.ip_addresses import blocked, blocked_text, opened

LOOPBACK = (ip_network("127.0.0.0/8"),)
BLOCKED_IPV4 = [
    *(
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "127.255.255.254",
        "10.0.0.1",
        "10.255.255.255",
        "172.16.0.1",
        "172.31.255.255",
    ),
    *(
        "192.168.0.1",
        "192.168.255.255",
        "169.254.0.1",
        "169.254.169.254",
        "168.63.129.16",
        "100.64.0.1",
        "100.100.100.200",
    ),
    *("100.127.255.255", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.51.100.9"),
    *("203.0.113.7", "198.18.0.1", "198.19.255.255", "192.0.0.192", "192.88.99.1"),
]
PERMITTED_IPV4 = [
    *(
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
    ),
    *("169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.167.255.255", "192.169.0.0"),
    *("198.17.255.255", "198.20.0.0", "223.255.255.255", "192.0.1.1", "192.0.3.1"),
]
BLOCKED_IPV6 = [
    *("::", "::1", "fe80::1", "febf::1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "ff0e::1", "2001:db8::1"),
    *("3fff::1", "2001:2::1", "100::1", "5f00::1", "4000::1", "e000::1", "2001::1", "2001:10::1", "2002:808:808::1"),
    *("64:ff9b:1::808:808", "::8.8.8.8", "::ffff:0:8.8.8.8", "2001:0:808:808::f7f7:f7f7"),
]
PERMITTED_IPV6 = ["2606:4700:4700::1111", "2a00:1450::1", "2001:200::1", "2001:4860:4860::8888", "64:ff9b::808:808"]


@pytest.mark.parametrize("text", BLOCKED_IPV4 + BLOCKED_IPV6)
def test_special_addresses_are_blocked(text: str) -> None:
    """Loopback, private, link-local, shared, metadata, multicast, reserved, documentation and benchmark are blocked."""
    assert blocked_text(text) is not None


@pytest.mark.parametrize("text", PERMITTED_IPV4 + PERMITTED_IPV6)
def test_public_addresses_are_permitted(text: str) -> None:
    """Public addresses are permitted, up to the borders of each blocked range."""
    assert blocked_text(text) is None


@pytest.mark.parametrize("text", BLOCKED_IPV4)
@pytest.mark.parametrize("prefix", ["::ffff:0:0", "64:ff9b::", "64:ff9b:1::", "::", "::ffff:0:0:0"])
def test_a_blocked_address_inside_an_ipv6_address_is_blocked(text: str, prefix: str) -> None:
    """Mapped, NAT64, local NAT64, compatible and translated forms of a blocked address are blocked."""
    embedded = IPv6Address(int(IPv6Address(prefix)) | int(IPv4Address(text)))
    assert blocked(embedded) is not None


@pytest.mark.parametrize("text", BLOCKED_IPV4)
def test_tunnels_to_a_blocked_address_are_blocked(text: str) -> None:
    """6to4 and Teredo, which contain the address at other bits, are blocked."""
    embedded_ipv4 = int(IPv4Address(text))
    assert blocked(IPv6Address((0x2002 << 112) | (embedded_ipv4 << 80) | 1)) is not None
    assert blocked(IPv6Address((0x20010000 << 96) | (0x08080808 << 64) | (embedded_ipv4 ^ 0xFFFFFFFF))) is not None


@given(st.ip_addresses(v=4))
def test_mapped_and_nat64_are_judged_as_the_ipv4_address(address: IPv4Address) -> None:
    """The two forms that reach the IPv4 address itself are permitted exactly if it is."""
    for prefix in ("::ffff:0:0", "64:ff9b::"):
        embedded = IPv6Address(int(IPv6Address(prefix)) | int(address))
        assert (blocked(embedded) is None) == (blocked(address) is None)


@given(st.ip_addresses())
def test_no_permitted_address_is_private_to_the_standard_library(address: IPv4Address | IPv6Address) -> None:
    """An address that the standard library calls private, multicast, link-local or loopback is never permitted."""
    nat64 = ip_network("64:ff9b::/96")
    if blocked(address) is None and address not in nat64 and getattr(address, "ipv4_mapped", None) is None:
        assert not any((address.is_private, address.is_multicast, address.is_link_local, address.is_loopback))


@pytest.mark.parametrize(
    "text", ["fe80::1%eth0", "::1%lo", "127.0.0.1 ", "", "localhost", "0x7f000001", "2130706433", "127.1"]
)
def test_text_that_is_no_plain_address_is_blocked(text: str) -> None:
    """Zone ids, names, short and numeric spellings are never read as a permitted address."""
    assert blocked_text(text) is not None


def test_the_allow_list_permits_its_ranges_only() -> None:
    """An allowed range permits its addresses, also in mapped form, and no others."""
    assert blocked_text("127.0.0.1", LOOPBACK) is None
    assert blocked_text("::ffff:127.0.0.1", LOOPBACK) is None
    assert blocked_text("::1", LOOPBACK) is not None
    assert blocked_text("10.0.0.1", LOOPBACK) is not None
    assert blocked_text("2002:7f00:1::1", LOOPBACK) is not None
    assert blocked_text("64:ff9b:1::1", (ip_network("64:ff9b:1::/48"),)) is None


def test_opened_means_the_allow_list_only() -> None:
    """A public address is permitted but not in the allow list: live endpoints must not call it over plain http."""
    assert opened("127.0.0.1", LOOPBACK)
    assert opened("::ffff:127.0.0.1", LOOPBACK)
    assert not opened("8.8.8.8", LOOPBACK)
    assert not opened("not an address", LOOPBACK)
    assert opened("8.8.8.8", (ip_network("0.0.0.0/0"),))


@given(st.ip_addresses())
def test_text_and_value_are_judged_alike(address: IPv4Address | IPv6Address) -> None:
    """An address and its text have the same verdict."""
    assert blocked_text(str(address)) == blocked(ip_address(str(address)))
