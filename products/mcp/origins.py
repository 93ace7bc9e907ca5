"""Host and Origin of requests to /mcp: a web page must not reach an API by a name of its own (DNS rebinding).

Browsers send the page's Origin with every POST, and no browser adds a key by itself. So the Origin is always checked, and the
Host, which proxies and container networks choose, only against a list that the operator gives.
"""

import re
from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

from starlette.requests import Request

from spine.kernel.errors import Forbidden
from spine.kernel.settings import HttpSettings, McpSettings

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_HOST: Final = re.compile(r"[a-z0-9_.:-]+")


def check_origin(request: Request, settings: McpSettings, public_url: str | None) -> None:
    """Raises Forbidden `host_not_allowed` or `origin_not_allowed`.

    A page's Origin must be on this machine, that of SPINE_PUBLIC_URL, or one of SPINE_MCP_ORIGINS; programs send none. With
    SPINE_MCP_HOSTS the Host must be one of these, an address, localhost, or the host of SPINE_PUBLIC_URL.
    """
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    name = _split("//" + host).hostname or ""
    known = {"localhost", _split(public_url or "").hostname, *settings.mcp_hosts}
    if settings.mcp_hosts and not (_is_address(name) or name in known):
        raise Forbidden(
            f"this API is not known as {name[:100]!r}; its operator can add the name to SPINE_MCP_HOSTS",
            code="host_not_allowed",
            param="Host",
        )
    if origin is None or origin in settings.mcp_origins or origin == _origin_of(public_url or ""):
        return
    if _split(origin).hostname not in _LOOPBACK:
        raise Forbidden(
            "pages of this origin may not call tools; the operator can add it to SPINE_MCP_ORIGINS",
            code="origin_not_allowed",
            param="Origin",
        )


def base_url(request: Request, http: HttpSettings) -> str:
    """Return the URL of the API for this caller: SPINE_PUBLIC_URL or, without one, the one that was called."""
    called = f"{request.scope['scheme']}://{request.headers.get('host', '')}"
    if http.public_url or not _HOST.fullmatch(_split(called).hostname or ""):
        return http.url
    return _origin_of(called)


def _origin_of(url: str) -> str:
    parts = _split(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")


def _split(url: str) -> SplitResult:
    """Split a URL; one that is none has no host and no port."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError for one that is no number
    except ValueError:
        return SplitResult("", "", "", "", "")
    return parts


def _is_address(host: str) -> bool:
    """True for an IP address. No page has an address of ours as its name, so rebinding needs a name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
