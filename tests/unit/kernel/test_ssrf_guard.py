"""The guard's parts on their own: what the resolver hands out, and whose fault a fault is."""

import errno
import socket
from unittest.mock import Mock

import aiohttp
import pytest

from policies.ip_addresses import blocked_text
from spine.kernel.http_client.errors import error_code
from spine.kernel.http_client.ssrf_guard import AddressBlockedError, GuardedResolver, guarded_sockets


def _resolver(*addresses: str) -> GuardedResolver:
    async def lookup(_: str) -> list[str]:
        return list(addresses)

    return GuardedResolver(lookup, blocked_text)


async def test_the_resolver_hands_out_permitted_addresses_only() -> None:
    """Closed addresses of a name are dropped before anything connects, in the order given."""
    found = await _resolver("10.0.0.1", "8.8.8.8", "::1", "2606:4700::1").resolve("x.example", 443)
    assert [(one["host"], one["port"], one["family"]) for one in found] == [
        ("8.8.8.8", 443, socket.AF_INET),
        ("2606:4700::1", 443, socket.AF_INET6),
    ]


async def test_a_name_with_closed_addresses_only_is_blocked() -> None:
    """Nothing permitted is `AddressBlockedError`; no address at all is a failed lookup."""
    with pytest.raises(AddressBlockedError):
        await _resolver("10.0.0.1", "::1").resolve("x.example", 443)
    with pytest.raises(socket.gaierror):
        await _resolver().resolve("x.example", 443)


def test_no_socket_is_made_for_a_closed_address() -> None:
    """The last look is at the address that would be connected to."""
    with pytest.raises(AddressBlockedError):
        guarded_sockets(blocked_text)((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 80)))


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.EMFILE, None),
        (errno.ENFILE, None),
        (errno.ENOMEM, None),
        (errno.ENOBUFS, None),
        (errno.ECONNREFUSED, "connect_refused"),
        (errno.ETIMEDOUT, "connect_timeout"),
        (errno.ENETUNREACH, "connect_unreachable"),
        (errno.EHOSTUNREACH, "connect_unreachable"),
        (errno.EADDRNOTAVAIL, "connect_unreachable"),
        (errno.ECONNRESET, "connection_reset"),
    ],
)
def test_a_fault_of_this_machine_is_no_receivers_fault(number: int, code: str | None) -> None:
    """Running out of sockets or memory has no code: it must not use up anybody's attempts."""
    fault = aiohttp.ClientConnectorError(Mock(), OSError(number, "x"))
    assert error_code(fault) == code
