"""Decides which URLs may be called: checks the form of an endpoint's URL before its host name is resolved.

The rules are stricter than those of a browser. Forms that two parsers could read differently are refused, not
repaired, because the party that writes the URL does not own the network that it is called from.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final
from urllib.parse import quote, urlsplit

import idna

from policies.ip_addresses import Address, Network, blocked, blocked_text, opened

URL_MAX_CHARS: Final = 2048
LOCALHOST_ADDRESSES: Final = ("127.0.0.1", "::1")

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_FORBIDDEN: Final = re.compile(r'[\x00-\x20\x7f-\xa0\u2028\u2029\ufeff\\<>"{}|^`]')
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_KEPT_IN_URL: Final = "!$%&'()*+,/:;=?@[]~"


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that may be called, in normalised form: host in ASCII and lower case, no fragment."""

    url: str
    scheme: str
    host: str
    port: int
    address: Address | None
    """The host if it is an address literal; None for a name, which is judged after it is resolved."""


@dataclass(frozen=True, slots=True)
class TargetRefused:
    """A URL that must not be called. `code` is `invalid_url` (its form) or `egress_blocked` (its address)."""

    code: str
    why: str


def target(url: str, allow: Sequence[Network] = ()) -> Target | TargetRefused:
    """Parse and judge a URL without resolving it. `judge_addresses` judges the addresses of a name later."""
    if len(url) > URL_MAX_CHARS:
        return _invalid(f"longer than {URL_MAX_CHARS} characters")
    if _FORBIDDEN.search(url):
        return _invalid("has a character that must be percent-encoded")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return _invalid(str(error))
    scheme = parts.scheme
    if scheme not in _DEFAULT_PORTS:
        return _invalid("the scheme must be http or https")
    if "@" in parts.netloc:
        return _invalid("must not carry a user name or password")
    if port == 0:
        return _invalid("port 0 cannot be called")
    host = _host(parts.netloc)
    if isinstance(host, TargetRefused):
        return host
    name, address = host
    why = blocked(address, allow) if address is not None else _blocked_name(name, allow)
    if why is not None:
        return TargetRefused("egress_blocked", f"{name} is {why}")
    spelled = _spelled(scheme, name, port, parts.path, parts.query)
    return Target(spelled, scheme, name, port or _DEFAULT_PORTS[scheme], address)


def judge_addresses(
    target: Target, addresses: Sequence[str], allow: Sequence[Network] = (), *, https_required: bool = False
) -> TargetRefused | None:
    """Judge the resolved addresses of a target. Returns None if the target may be called.

    One permitted address is enough, because the client never connects to the others: if only IPv4 loopback is allowed,
    `localhost` still works. If https is required, http is permitted only if every permitted address is in the
    operator's allow list. Empty `addresses` (not resolved) block nothing except that case.
    """
    usable = [text for text in addresses if blocked_text(text, allow) is None]
    if addresses and not usable:
        return TargetRefused("egress_blocked", f"{target.host} is {blocked_text(addresses[0], allow)}")
    if https_required and target.scheme == "http" and not (usable and all(opened(text, allow) for text in usable)):
        return TargetRefused("egress_blocked", "https is required for live endpoints")
    return None


def known_addresses(target: Target) -> tuple[str, ...]:
    """Return the addresses known without a resolver: an address literal, or loopback for localhost (RFC 6761)."""
    if target.address is not None:
        return (str(target.address),)
    return LOCALHOST_ADDRESSES if is_localhost(target.host) else ()


def _host(netloc: str) -> tuple[str, Address | None] | TargetRefused:
    """Return the host in ASCII, and its address if it is an address literal."""
    if netloc.startswith("["):
        literal, closed, rest = netloc[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            return _invalid("the IPv6 address is not well-formed")
        return _ipv6_host(literal)
    text = netloc.partition(":")[0]
    if not text.isascii():
        try:
            # UTS 46 may map digits and dots of other scripts to ASCII, so all checks come after it.
            text = idna.encode(text, uts46=True).decode("ascii")
        except idna.IDNAError as error:
            return _invalid(f"the host is not a valid international name: {error}")
    name = text.lower().removesuffix(".")
    labels = name.split(".")
    if not name or len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        return _invalid("the host is not a valid name")
    if not _NUMBER.fullmatch(labels[-1]):
        return name, None
    # Some resolvers read a host whose last label is a number as an IPv4 address (0x7f.1, 2130706433, 017.0.0.1).
    try:
        return name, IPv4Address(text)
    except ValueError:
        return _invalid("an IPv4 address must be written as four decimal numbers")


def _ipv6_host(literal: str) -> tuple[str, Address] | TargetRefused:
    if "%" in literal:
        return _invalid("an IPv6 address must not carry a zone id")
    try:
        address = IPv6Address(literal)
    except ValueError:
        return _invalid("the IPv6 address is not well-formed")
    return str(address), address


def _blocked_name(name: str, allow: Sequence[Network]) -> str | None:
    if is_localhost(name) and all(blocked_text(text, allow) for text in LOCALHOST_ADDRESSES):
        return "loopback"
    return None


def is_localhost(name: str) -> bool:
    """Return True for a name that is always loopback and never asked for (RFC 6761, 6.3). It is in lower case."""
    return name == "localhost" or name.endswith(".localhost")


def _spelled(scheme: str, name: str, port: int | None, path: str, query: str) -> str:
    host = f"[{name}]" if ":" in name else name
    at = "" if port is None or port == _DEFAULT_PORTS[scheme] else f":{port}"
    # Receivers route and sign on the path, so ASCII characters are sent unchanged.
    tail = quote(f"{path or '/'}{'?' + query if query else ''}", safe=_KEPT_IN_URL)
    return f"{scheme}://{host}{at}{tail}"


def _invalid(why: str) -> TargetRefused:
    return TargetRefused("invalid_url", f"the URL is not valid: {why}")
