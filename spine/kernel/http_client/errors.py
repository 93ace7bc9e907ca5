"""Maps the exception of a failed call to one error code of a closed list.

The most specific exceptions are tested first: aiohttp's classes derive from each other, from OSError and from
TimeoutError.
"""

import errno
import ssl
from typing import Final

import aiohttp

from spine.kernel.http_client.response_limits import InvalidBodyError
from spine.kernel.http_client.ssrf_guard import AddressBlockedError

LOCAL_ERRNO: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""The errors of a machine that is out of sockets or memory."""

_UNREACHABLE_ERRNO: Final = frozenset(
    {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.ENETDOWN, errno.EHOSTDOWN}
)

CALL_ERRORS: Final = (aiohttp.ClientError, OSError, ValueError)
"""Exceptions that a call to a receiver may raise. TimeoutError is an OSError."""


def error_code(error: BaseException) -> str | None:
    """Return the code of a failed call; None if this machine caused the error (out of sockets or memory).

    An error of this machine must not use up a receiver's attempts: the caller raises it.
    """
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return "connect_timeout"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return _dns_code(error.os_error)
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return "tls_error"
    if isinstance(error, aiohttp.ClientConnectorError):
        return _connect_code(error.os_error)
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, aiohttp.ClientResponseError | InvalidBodyError):
        return "invalid_response"
    if isinstance(error, aiohttp.InvalidURL):
        return "invalid_url"
    if isinstance(error, ValueError):
        return "invalid_request"
    return "connection_reset"


def _dns_code(error: OSError) -> str | None:
    if isinstance(error, AddressBlockedError):
        return "egress_blocked"
    return None if error.errno in LOCAL_ERRNO else "dns_error"


def _connect_code(error: OSError) -> str | None:
    if isinstance(error, AddressBlockedError):
        return "egress_blocked"
    if isinstance(error, ConnectionRefusedError):
        return "connect_refused"
    if isinstance(error, TimeoutError):
        return "connect_timeout"
    if error.errno in LOCAL_ERRNO:
        return None
    if error.errno in _UNREACHABLE_ERRNO:
        return "connect_unreachable"
    return "connection_reset"
