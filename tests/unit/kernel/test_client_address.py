"""Addresses that limits count by."""

from ipaddress import ip_network

import pytest
from starlette.requests import Request

from spine.kernel.client_address import client_site, is_local, site_of

PROXIES = (ip_network("127.0.0.0/8"), ip_network("10.0.0.0/8"))


def request(peer: str, *forwarded: str, **headers: str) -> Request:
    """A request from this peer, with one X-Forwarded-For header for each text."""
    pairs = [("x-forwarded-for", text) for text in forwarded] + list(headers.items())
    encoded = [(name.encode(), text.encode()) for name, text in pairs]
    return Request({"type": "http", "client": (peer, 1), "headers": encoded})


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_a_site_is_an_address_or_a_network(host: str, expected: str) -> None:
    """IPv4 counts by address, also within IPv6; IPv6 counts by /64."""
    assert site_of(host) == expected


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("203.0.113.9", ("198.51.100.1",), "203.0.113.9"),
        ("127.0.0.1", ("198.51.100.1",), "198.51.100.1"),
        ("127.0.0.1", ("192.0.2.1, 198.51.100.1",), "198.51.100.1"),
        ("127.0.0.1", ("192.0.2.1", "198.51.100.1, 10.1.2.3"), "198.51.100.1"),
        ("127.0.0.1", ("192.0.2.1, unknown",), "127.0.0.1"),
        ("127.0.0.1", (), "127.0.0.1"),
    ],
)
def test_a_client_is_named_by_trusted_proxies_alone(peer: str, forwarded: tuple[str, ...], expected: str) -> None:
    """X-Forwarded-For is read from the right, as far as trusted proxies wrote it; what a client wrote itself does not count."""
    assert client_site(request(peer, *forwarded), PROXIES) == expected


def test_a_local_caller_has_no_proxy() -> None:
    """A caller is local by its socket's address, without a trace of a proxy and without one in the settings."""
    assert is_local(request("127.0.0.1"), ())
    assert is_local(request("::1"), ())
    assert not is_local(request("203.0.113.9"), ())
    assert not is_local(request("127.0.0.1", "127.0.0.1"), ())
    assert not is_local(request("127.0.0.1", via="1.1 proxy"), ())
    assert not is_local(request("127.0.0.1"), PROXIES)
