"""Host and Origin of requests to /mcp (DNS rebinding)."""

import pytest
from starlette.requests import Request

from products.mcp.origins import base_url, check_origin
from spine.kernel.errors import Forbidden
from spine.kernel.settings import HttpSettings, McpSettings

PUBLIC = "https://api.example.com"


def request(host: str | None, origin: str | None = None) -> Request:
    """A request with these headers."""
    headers = [(name, value.encode()) for name, value in ((b"host", host), (b"origin", origin)) if value is not None]
    return Request({"type": "http", "scheme": "http", "path": "/mcp", "query_string": b"", "headers": headers})


def settings(hosts: str = "", origins: str = "") -> McpSettings:
    """Settings with these lists."""
    return McpSettings.model_validate({"mcp_hosts": hosts, "mcp_origins": origins})


@pytest.mark.parametrize(
    ("host", "origin", "hosts", "origins"),
    [
        ("127.0.0.1:8080", None, "", ""),
        ("localhost:8080", None, "spine.internal", ""),
        ("[::1]:8080", None, "spine.internal", ""),
        ("203.0.113.7", None, "spine.internal", ""),
        ("api.example.com", None, "spine.internal", ""),
        ("API.EXAMPLE.COM:443", None, "spine.internal", ""),
        ("spine.internal:8080", None, "other,spine.internal", ""),
        ("anything.example.net", None, "", ""),
        (None, None, "", ""),
        ("localhost", "http://localhost:6274", "", ""),
        ("localhost", "http://[::1]:6274", "", ""),
        ("api.example.com", PUBLIC, "", ""),
        ("api.example.com", "https://app.example.com", "", "https://app.example.com"),
    ],
)
def test_known_names_are_allowed(host: str | None, origin: str | None, hosts: str, origins: str) -> None:
    """Addresses, localhost, the public URL and what the operator names are allowed, with any port; without a list, any Host."""
    check_origin(request(host, origin), settings(hosts, origins), PUBLIC)


@pytest.mark.parametrize(
    ("host", "origin", "code"),
    [
        ("rebound.example.net", None, "host_not_allowed"),
        ("rebound.example.net:8080", "http://rebound.example.net:8080", "host_not_allowed"),
        ("api.example.com.example.net", None, "host_not_allowed"),
        ("localhost.example.net", None, "host_not_allowed"),
        ("localhost@example.net", None, "host_not_allowed"),
        ("*", None, "host_not_allowed"),
        ("", None, "host_not_allowed"),
        (None, None, "host_not_allowed"),
        ("[::1", None, "host_not_allowed"),
        ("localhost:http", None, "host_not_allowed"),
        ("localhost", "http://rebound.example.net", "origin_not_allowed"),
        ("localhost", "http://203.0.113.7", "origin_not_allowed"),
        ("localhost", "http://api.example.com", "origin_not_allowed"),
        ("localhost", "https://api.example.com:444", "origin_not_allowed"),
        ("localhost", "null", "origin_not_allowed"),
        ("localhost", "", "origin_not_allowed"),
        ("localhost", "http://localhost.example.net", "origin_not_allowed"),
    ],
)
def test_other_names_are_refused(host: str | None, origin: str | None, code: str) -> None:
    """A name that a page could have made to point here, and a page of another site, are refused."""
    with pytest.raises(Forbidden) as raised:
        check_origin(request(host, origin), settings(hosts="spine.internal"), PUBLIC)
    assert raised.value.code == code


@pytest.mark.parametrize(
    ("host", "public_url", "expected"),
    [
        ("localhost:8080", None, "http://localhost:8080"),
        ("[::1]:8080", None, "http://[::1]:8080"),
        ("spine:8080", None, "http://spine:8080"),
        ("user@localhost", None, "http://localhost"),
        ('a"b', None, "http://127.0.0.1:8080"),
        ("localhost:http", None, "http://127.0.0.1:8080"),
        (None, None, "http://127.0.0.1:8080"),
        ("localhost", "https://api.example.com/spine/", "https://api.example.com/spine"),
    ],
)
def test_the_base_url_is_the_public_one_or_the_one_that_was_called(
    host: str | None, public_url: str | None, expected: str
) -> None:
    """Callers are told the URL that they can reach; what is no name of a host is not repeated."""
    assert base_url(request(host), HttpSettings(public_url=public_url)) == expected
