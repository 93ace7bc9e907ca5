"""Host and Origin of requests to /mcp: a web page must not reach an API by a name of its own (DNS rebinding)."""

from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

from starlette.requests import Request

from spine.kernel.errors import Forbidden
from spine.kernel.settings import McpSettings

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def check_origin(request: Request, settings: McpSettings, public_url: str | None) -> None:
    """Raises Forbidden `host_not_allowed` or `origin_not_allowed`.

    An address, localhost, the host of SPINE_PUBLIC_URL and those of SPINE_MCP_HOSTS are allowed as Host. A page's Origin must be
    on this machine, that of SPINE_PUBLIC_URL, or one of SPINE_MCP_ORIGINS; programs send none.
    """
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    name = _split("//" + host).hostname or ""
    known = {"localhost", _split(public_url or "").hostname, *settings.mcp_hosts}
    if not (_is_address(name) or name in known or "*" in settings.mcp_hosts):
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


def base_url(request: Request, public_url: str | None) -> str:
    """Return the URL of the API for this caller: SPINE_PUBLIC_URL or, without one, the one that was called."""
    return (public_url or _origin_of(f"{request.scope['scheme']}://{request.headers.get('host', '')}")).rstrip("/")


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
