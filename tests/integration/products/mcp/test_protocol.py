"""The protocol at /mcp: revisions, authentication, limits, and what is not offered."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.api import TLS, Api, Organisation, serve, unique_key
from tests.mcp_client import NEWEST, call, rpc

OLDER = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
META = {"io.modelcontextprotocol/protocolVersion": NEWEST, "io.modelcontextprotocol/clientCapabilities": {}}
ACCEPT = {"Accept": "application/json, text/event-stream"}


def post(url: str, key: str, message: Any, **headers: str) -> httpx.Response:
    """Post one message as it is, with these headers."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", **ACCEPT, **headers}
    content = message if isinstance(message, bytes) else json.dumps(message)
    return httpx.post(f"{url}/mcp", content=content, headers=headers, trust_env=False, timeout=30, verify=TLS)


def test_the_newest_revision_needs_no_handshake(api: Api, org: Organisation) -> None:
    """`server/discover`, a list and a call are single requests with the revision in headers and `_meta` (revision 2026-07-28)."""
    discovered = rpc(api.url, org.test.key, "server/discover")
    assert discovered.status_code == 200
    result = discovered.json()["result"]
    assert result["supportedVersions"] == [NEWEST]
    assert result["capabilities"]["tools"] == {"listChanged": False}
    assert "idempotency_key" in result["instructions"]
    listed = rpc(api.url, org.test.key, "tools/list").json()["result"]
    assert (listed["cacheScope"], listed["ttlMs"], listed["resultType"]) == ("private", 300_000, "complete")
    assert not call(api.url, org.test.key, "crm_search_contacts").get("isError")
    for answer in (discovered, rpc(api.url, org.test.key, "tools/list", "/mcp/")):
        assert answer.headers["content-type"] == "application/json"
        assert "mcp-session-id" not in answer.headers
        assert answer.headers["request-id"].startswith("req_")


@pytest.mark.parametrize("revision", OLDER)
def test_older_revisions_are_served(revision: str, api: Api, org: Organisation) -> None:
    """A client of an older revision gets its handshake, its list and its calls, without a session."""
    hello = {"protocolVersion": revision, "capabilities": {}, "clientInfo": {"name": "old", "version": "1"}}
    begun = post(api.url, org.test.key, {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello})
    assert begun.status_code == 200, begun.text
    assert begun.json()["result"]["protocolVersion"] == revision
    assert "mcp-session-id" not in begun.headers
    headers = {"MCP-Protocol-Version": revision}
    noted = post(api.url, org.test.key, {"jsonrpc": "2.0", "method": "notifications/initialized"}, **headers)
    assert (noted.status_code, noted.content) == (202, b"")
    listed = post(api.url, org.test.key, {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, **headers).json()
    tools = {tool["name"]: tool for tool in listed["result"]["tools"]}
    assert tools["crm_create_contact"]["inputSchema"]["required"] == ["name", "idempotency_key"]
    params = {"name": "crm_create_contact", "arguments": {"name": "Meera", "idempotency_key": unique_key()}}
    message = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params}
    result = post(api.url, org.test.key, message, **headers).json()["result"]
    assert json.loads(result["content"][0]["text"])["name"] == "Meera"


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"MCP-Protocol-Version": NEWEST, "Mcp-Method": "tools/call"}, -32020),
        ({"MCP-Protocol-Version": "2030-01-01", "Mcp-Method": "tools/list"}, -32022),
    ],
    ids=["another-method", "unknown-revision"],
)
def test_headers_that_do_not_fit_are_refused(headers: dict[str, str], code: int, api: Api, org: Organisation) -> None:
    """Routing headers that contradict the body, and an unknown revision, are 400 with the protocol's own code."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": headers["MCP-Protocol-Version"],
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}}
    answer = post(api.url, org.test.key, message, **headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


@pytest.mark.parametrize(
    "body", [b"{", b'{"a": 1, "a": 2}', b'{"n": 99999999999999999999}', b'"\\ud800"', b"[" * 5000], ids=range(5)
)
def test_what_is_no_json_is_a_parse_error(body: bytes, api: Api, org: Organisation) -> None:
    """A body that is no strict JSON is a parse error of JSON-RPC, with our problem as its data."""
    answer = post(api.url, org.test.key, body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == -32700
    assert answer.json()["error"]["data"]["code"] == "invalid_json"
    assert answer.json()["error"]["data"]["request_id"] == answer.headers["request-id"]


@pytest.mark.parametrize("message", [[], [{"jsonrpc": "2.0", "id": 1, "method": "ping"}], 5, None, {"id": 1}], ids=str)
@pytest.mark.parametrize("revision", [*OLDER, NEWEST])
def test_what_is_no_request_is_refused(message: Any, revision: str, api: Api, org: Organisation) -> None:
    """A batch, or JSON that is no JSON-RPC request, is 400."""
    answer = post(api.url, org.test.key, message, **{"MCP-Protocol-Version": revision})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] in (-32700, -32600, -32602)


@pytest.fixture(scope="module")
def key(api: Api) -> str:
    """A key for calls that change nothing."""
    return api.sign_up().test.key


scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    scalars | st.text(max_size=5),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=5), part, max_size=3),
)
methods = st.sampled_from(
    [
        "initialize",
        "ping",
        "tools/list",
        "tools/call",
        "server/discover",
        "notifications/cancelled",
        "notifications/initialized",
    ]
)
frames = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0") | values},
    optional={"id": values, "method": methods | values, "params": values, "result": values, "error": values},
) | st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0"), "id": st.integers() | st.text(max_size=5), "method": methods},
    optional={
        "params": st.fixed_dictionaries(
            {},
            optional={
                "name": st.just("crm_search_contacts") | values,
                "arguments": st.dictionaries(st.sampled_from(["limit", "phone", "cursor", "x"]), values) | values,
                "_meta": st.just(META) | values,
                "protocolVersion": st.sampled_from(OLDER) | values,
                "cursor": values,
            },
        )
    },
)


@given(frame=frames, revision=st.none() | st.sampled_from([*OLDER, NEWEST]))
def test_any_frame_gets_an_answer(frame: Any, revision: str | None, api: Api, key: str) -> None:
    """Whatever JSON is sent, in any revision, the answer comes, and it is no 5xx and no internal error."""
    headers = {} if revision is None else {"MCP-Protocol-Version": revision}
    params = frame.get("params")
    name = params.get("name") if isinstance(params, dict) else None
    routing = {"Mcp-Method": frame.get("method"), "Mcp-Name": name}
    headers |= {
        header: value
        for header, value in routing.items()
        if isinstance(value, str) and value.isascii() and value.isprintable()
    }
    answer = post(api.url, key, frame, **headers)
    assert answer.status_code < 500
    if answer.status_code == 200:
        body = answer.json()
        assert body.get("error", {}).get("code") not in (-32603, 0)
        assert (
            "isError" not in body.get("result", {}) or body["result"].get("structuredContent", {}).get("status") != 500
        )


@pytest.mark.parametrize("method", ["subscriptions/listen", "prompts/list", "resources/list", "nothing/at_all"])
def test_what_is_not_offered_is_not_found(method: str, api: Api, org: Organisation) -> None:
    """A method that the server does not have is answered at once: 404 with the protocol's code, in older revisions 200."""
    answer = rpc(api.url, org.test.key, method)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["code"] in (-32601, -32602)
    older = post(api.url, org.test.key, {"jsonrpc": "2.0", "id": 1, "method": method})
    assert (older.status_code, older.json()["error"]["code"]) == (200, -32601)


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "OPTIONS"])
def test_there_are_no_streams_and_no_sessions(method: str, api: Api, org: Organisation) -> None:
    """Only POST is served: nothing is kept open between requests."""
    headers = {"Authorization": f"Bearer {org.test.key}", "Accept": "text/event-stream"}
    answer = httpx.request(method, f"{api.url}/mcp", headers=headers, trust_env=False, timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("authorization", "challenge"),
    [
        ({}, "Bearer resource_metadata="),
        ({"Authorization": "Bearer sk_test_nothing"}, 'Bearer error="invalid_token", resource_metadata='),
        ({"Authorization": "Basic eDp5"}, 'Bearer error="invalid_token", resource_metadata='),
    ],
    ids=["none", "unknown", "basic"],
)
def test_without_a_key_it_is_401_with_the_way_to_one(authorization: dict[str, str], challenge: str, api: Api) -> None:
    """Without a valid key the answer is 401 before the body is read, and names the metadata of the resource (RFC 9728)."""
    answer = httpx.post(f"{api.url}/mcp", content=b"{", headers=authorization, trust_env=False)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    header = answer.headers["www-authenticate"]
    assert header.startswith(challenge)
    metadata = httpx.get(header.rpartition('resource_metadata="')[2].rstrip('"'), trust_env=False)
    assert metadata.status_code == 200
    assert metadata.json() == httpx.get(f"{api.url}/.well-known/oauth-protected-resource", trust_env=False).json()
    assert metadata.json()["resource"] == f"{api.url}/mcp"
    assert {"crm:read", "crm:write", "notifications:write"} <= set(metadata.json()["scopes_supported"])
    assert metadata.json()["bearer_methods_supported"] == ["header"]


def test_a_revoked_key_is_refused(api: Api, org: Organisation, http: httpx.Client) -> None:
    """A key that was revoked lists and calls nothing any more."""
    made = http.post("/v1/api_keys", json={"name": "agent", "scopes": ["crm:read"]}).json()
    assert rpc(api.url, made["api_key"], "tools/list").status_code == 200
    http.post(f"/v1/api_keys/{made['id']}/revoke").raise_for_status()
    assert rpc(api.url, made["api_key"], "tools/list").status_code == 401


@pytest.fixture
def limited(api: Api) -> Iterator[Api]:
    """An API with eight requests in a window that does not end during a test."""
    with (
        pytest.MonkeyPatch.context() as patched,
        serve(api.database_url, api.redis_url, SPINE_RATE_LIMIT_REQUESTS="8") as running,
    ):
        patched.setattr("spine.kernel.rate_limits.WINDOW_S", 1_000_000_000)
        yield running


def test_each_request_counts_once(limited: Api, org: Organisation) -> None:
    """A list, a call, a refused call and a call of an unknown tool take one request each from the limit; beyond it, 429."""

    def remaining(answer: httpx.Response) -> int:
        return int(answer.headers["ratelimit"].partition("r=")[2].partition(";")[0])

    key = org.test.key
    assert remaining(rpc(limited.url, key, "tools/list")) == 7
    assert remaining(rpc(limited.url, key, "tools/call", name="crm_search_contacts", arguments={})) == 6
    assert rpc(limited.url, key, "tools/call", name="crm_search_contacts", arguments={"x": 1}).status_code == 200
    assert rpc(limited.url, key, "tools/call", name="nothing", arguments={}).status_code == 400
    assert remaining(rpc(limited.url, key, "server/discover")) == 3
    for _ in range(3):
        rpc(limited.url, key, "tools/call", name="crm_search_contacts", arguments={})
    refused = rpc(limited.url, key, "tools/list")
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert int(refused.headers["retry-after"]) >= 1
    for arguments in ({}, {"x": 1}):
        result = call(limited.url, key, "crm_search_contacts", **arguments)
        assert result["isError"]
        assert result["structuredContent"]["code"] == "rate_limited"
        assert result["_meta"]["retry_after_s"] >= 1


def test_a_large_request_is_refused(api: Api, org: Organisation) -> None:
    """A body over SPINE_MAX_BODY_BYTES is 413."""
    with serve(api.database_url, api.redis_url, SPINE_MAX_BODY_BYTES="2048") as small:
        answer = post(small.url, org.test.key, b" " * 2049)
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_a_large_result_is_refused_with_the_way_out(api: Api, org: Organisation, http: httpx.Client) -> None:
    """A result over SPINE_MCP_MAX_RESULT_BYTES is an error that says what to do; a change was made nevertheless."""
    with serve(api.database_url, api.redis_url, SPINE_MCP_MAX_RESULT_BYTES="1024") as small:
        arguments = {"name": "Meera", "fields": {"notes": "n" * 2000}, "idempotency_key": unique_key()}
        made = call(small.url, org.test.key, "crm_create_contact", **arguments)
        assert made["isError"]
        assert made["structuredContent"]["code"] == "result_too_large"
        assert "201" in made["structuredContent"]["detail"]
        [contact] = http.get("/crm/v1/contacts").json()["data"]
        assert contact["fields"] == arguments["fields"]
        listed = call(small.url, org.test.key, "crm_search_contacts")
        assert (listed["isError"], listed["structuredContent"]["param"]) == (True, "limit")
        read = call(small.url, org.test.key, "crm_get_contact", id=contact["id"])
        assert "GET /crm/v1/contacts/{id}" in read["structuredContent"]["detail"]


def test_it_can_be_off(api: Api, org: Organisation) -> None:
    """With SPINE_MCP=off the paths do not exist."""
    with serve(api.database_url, api.redis_url, SPINE_MCP="off") as off:
        assert rpc(off.url, org.test.key, "tools/list").status_code == 404
        assert httpx.get(f"{off.url}/.well-known/oauth-protected-resource/mcp", trust_env=False).status_code == 404


def test_a_page_of_another_site_is_refused(api: Api, org: Organisation) -> None:
    """A foreign Host or Origin gets 403 before the key is looked at; the public URL and the settings allow names."""
    public = {
        "SPINE_PUBLIC_URL": "https://api.example.com",
        "SPINE_MCP_ORIGINS": "https://app.example.com",
        "SPINE_MCP_HOSTS": "spine.internal",
    }
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    with serve(api.database_url, api.redis_url, **public) as running:

        def status(**headers: str) -> tuple[int, str]:
            answer = post(running.url, org.test.key, ping, **headers)
            return answer.status_code, answer.json().get("code", "")

        assert status() == (200, "")
        assert status(Host="rebound.example.net") == (403, "host_not_allowed")
        assert status(Host="api.example.com") == status(Host="spine.internal") == (200, "")
        assert status(Origin="https://evil.example.net") == (403, "origin_not_allowed")
        assert status(Origin="https://app.example.com") == (200, "")
        unauthenticated = post(running.url, "none", ping)
        expected = 'resource_metadata="https://api.example.com/.well-known/oauth-protected-resource/mcp"'
        assert expected in unauthenticated.headers["www-authenticate"]
