"""Requests within the process: what they carry, and what they take back."""

from ipaddress import ip_network
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from products.mcp.in_process import request_in_process, scope_for
from spine.kernel.client_address import client_site

CALLER: Scope = {
    "type": "http",
    "asgi": {"version": "3.0"},
    "http_version": "1.1",
    "scheme": "https",
    "client": ("10.0.0.1", 5000),
    "server": ("10.0.0.2", 8080),
    "method": "POST",
    "path": "/mcp",
    "query_string": b"x=1",
    "headers": [
        (b"host", b"api.example.com"),
        (b"authorization", b"Bearer key"),
        (b"x-forwarded-for", b"203.0.113.7"),
        (b"idempotency-key", b"of the transport"),
        (b"if-match", b"1"),
        (b"content-length", b"999"),
        (b"content-type", b"text/plain"),
    ],
    "spine.request_id": "req_outer",
    "spine.context": object(),
}


def test_the_callers_key_and_address_go_along_and_nothing_else() -> None:
    """The inner request has the caller's key, host and address; other headers and state of the outer one stay behind."""
    made = scope_for(CALLER, "GET", "/crm/v1/contacts", "limit=1", {"Idempotency-Key": "k"})
    request = Request(made)
    assert dict(request.headers) == {
        "host": "api.example.com",
        "authorization": "Bearer key",
        "x-forwarded-for": "203.0.113.7",
        "idempotency-key": "k",
    }
    assert (request.url.path, request.url.query) == ("/crm/v1/contacts", "limit=1")
    assert client_site(request, [ip_network("10.0.0.0/8")]) == "203.0.113.7"
    assert client_site(request, []) == "10.0.0.1"
    assert not [name for name in made if name.startswith("spine.")]


@pytest.mark.parametrize(("limit", "kept"), [(None, b"abcdef"), (6, b"abcdef"), (5, b"abc"), (2, b"")])
async def test_a_body_is_kept_up_to_the_limit_and_counted_whole(limit: int | None, kept: bytes) -> None:
    """No more than the limit is held in memory, and the size says how much was sent."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        received: dict[str, Any] = dict(await receive())
        assert received == {"type": "http.request", "body": b"question", "more_body": False}
        await send({"type": "http.response.start", "status": 201, "headers": [(b"request-id", b"req_1")]})
        for part in (b"abc", b"def"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body"})

    answer = await request_in_process(app, {"type": "http"}, b"question", limit)
    assert (answer.status, answer.headers["request-id"], answer.size) == (201, "req_1", 6)
    assert bytes(answer.body) == kept
