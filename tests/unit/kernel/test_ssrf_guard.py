"""Laws of the SSRF guard and of error codes, without a network."""

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


async def test_the_resolver_returns_permitted_addresses_only() -> None:
    """The resolver drops blocked addresses of a name and keeps the order of the others."""
    found = await _resolver("10.0.0.1", "8.8.8.8", "::1", "2606:4700::1").resolve("x.example", 443)
    assert [(result["host"], result["port"], result["family"]) for result in found] == [
        ("8.8.8.8", 443, socket.AF_INET),
        ("2606:4700::1", 443, socket.AF_INET6),
    ]


async def test_a_name_with_blocked_addresses_only_is_blocked() -> None:
    """A name without a permitted address raises AddressBlockedError; without any address the lookup fails."""
    with pytest.raises(AddressBlockedError):
        await _resolver("10.0.0.1", "::1").resolve("x.example", 443)
    with pytest.raises(socket.gaierror):
        await _resolver().resolve("x.example", 443)


def test_no_socket_is_opened_for_a_blocked_address() -> None:
    """The socket factory judges the address that the socket would connect to."""
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
def test_an_error_of_this_machine_has_no_code(number: int, code: str | None) -> None:
    """Running out of sockets or memory has no code, so it does not use up a receiver's attempts."""
    error = aiohttp.ClientConnectorError(Mock(), OSError(number, "x"))
    assert error_code(error) == code
