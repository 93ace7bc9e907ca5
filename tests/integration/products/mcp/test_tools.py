"""Tools over HTTP, with the official client: list, call, replay, refusals, scopes and tenancy (P-25, P-05)."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import jsonschema
import pytest
from mcp import MCPError
from mcp.types import CallToolResult

from tests.api import Api, Organisation, unique_key
from tests.mcp_client import connect


def content(result: CallToolResult) -> dict[str, Any]:
    """Return the structured content, which the text must say too."""
    [text] = result.content
    assert text.type == "text"
    assert json.loads(text.text) == result.structured_content
    found: dict[str, Any] = result.structured_content
    return found


@pytest.fixture
async def rest(org: Organisation) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the REST API, with every scope."""
    async with org.test.async_client() as made:
        yield made


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_tool_does_what_its_operation_does(
    mode: str, api: Api, org: Organisation, rest: httpx.AsyncClient
) -> None:
    """What a tool creates is there over REST, and a read over MCP answers the same JSON, for new and older clients (P-25)."""
    async with connect(api.url, org.test.key, mode) as client:
        assert client.protocol_version == ("2025-11-25" if mode == "legacy" else "2026-07-28")
        made = await client.call_tool(
            "crm_create_contact", {"name": "Meera", "phone": "+919876543210", "idempotency_key": unique_key()}
        )
        assert not made.is_error
        contact = content(made)
        assert contact == (await rest.get(f"/crm/v1/contacts/{contact['id']}")).json()
        read = await client.call_tool("crm_get_contact", {"id": contact["id"]})
        assert content(read) == contact
        found = await client.call_tool("crm_search_contacts", {"phone": "098765 43210", "limit": 1})
        assert content(found) == {"data": [contact], "has_more": False, "next_cursor": None}


async def test_the_same_key_replays_and_another_body_conflicts(
    api: Api, org: Organisation, rest: httpx.AsyncClient
) -> None:
    """A repeated idempotency key answers the first result, over REST too; with other arguments it is 409 (P-05, P-06)."""
    async with connect(api.url, org.test.key) as client:
        arguments = {"name": "Meera", "idempotency_key": unique_key()}
        first = await client.call_tool("crm_create_contact", arguments)
        again = await client.call_tool("crm_create_contact", arguments)
        assert content(again) == content(first)
        assert first.meta is not None
        assert again.meta is not None
        assert "replayed" not in first.meta
        assert (again.meta["status"], again.meta["replayed"]) == (201, True)
        assert first.meta["request_id"] != again.meta["request_id"]
        header = {"Idempotency-Key": arguments["idempotency_key"]}
        assert (await rest.post("/crm/v1/contacts", json={"name": "Meera"}, headers=header)).json() == content(first)
        other = await client.call_tool("crm_create_contact", arguments | {"name": "Asha"})
        assert other.is_error
        assert content(other)["code"] == "idempotency_key_reused"
        assert content(other)["param"] == "idempotency_key"
    assert len((await rest.get("/crm/v1/contacts")).json()["data"]) == 1


@pytest.mark.parametrize(
    ("tool", "arguments", "expected"),
    [
        ("crm_create_contact", {"name": "x"}, (400, "idempotency_key_required", "idempotency_key")),
        (
            "crm_create_contact",
            {"name": "x", "idempotency_key": None},
            (400, "idempotency_key_required", "idempotency_key"),
        ),
        (
            "crm_create_contact",
            {"name": "x", "idempotency_key": "a\nb"},
            (400, "idempotency_key_invalid", "idempotency_key"),
        ),
        (
            "crm_create_contact",
            {"name": "x", "idempotency_key": 7},
            (400, "idempotency_key_invalid", "idempotency_key"),
        ),
        ("crm_create_contact", {"name": "", "idempotency_key": "k"}, (422, "validation_failed", "name")),
        ("crm_create_contact", {"idempotency_key": "k"}, (422, "validation_failed", "name")),
        ("crm_create_contact", {"name": "x", "nmae": 1, "idempotency_key": "k"}, (422, "validation_failed", "nmae")),
        ("crm_search_contacts", {"idempotency_key": "k"}, (422, "validation_failed", "idempotency_key")),
        ("crm_search_contacts", {"limit": 101}, (422, "validation_failed", "limit")),
        ("crm_search_contacts", {"limit": {"a": 1}}, (422, "validation_failed", "limit")),
        ("crm_search_contacts", {"cursor": "no"}, (400, "invalid_cursor", "cursor")),
        ("crm_get_contact", {}, (422, "validation_failed", "id")),
        ("crm_get_contact", {"id": 5}, (422, "validation_failed", "id")),
        ("crm_get_contact", {"id": "con_01ARZ3NDEKTSV4RRFFQ69G5FAV"}, (404, "not_found", None)),
        ("crm_get_contact", {"id": "con_01ARZ3NDEKTSV4RRFFQ69G5FAV/timeline"}, (404, "not_found", None)),
        ("crm_get_contact", {"id": ""}, (404, "not_found", None)),
        ("crm_search_contacts", {"phone": "9" * 1_000_001}, (414, "url_too_long", None)),
    ],
)
async def test_a_refusal_is_our_problem(
    tool: str, arguments: dict[str, Any], expected: tuple[int, str, str | None], api: Api, org: Organisation
) -> None:
    """A refused call is a result with isError and the problem that REST answers: code, param and request id (X16)."""
    async with connect(api.url, org.test.key) as client:
        result = await client.call_tool(tool, arguments)
    problem = content(result)
    assert result.is_error
    assert (problem["status"], problem["code"], problem.get("param")) == expected
    assert problem["detail"]
    assert result.meta is not None
    assert problem["request_id"] == result.meta["request_id"]


async def test_an_unknown_argument_is_answered_with_the_known_ones(api: Api, org: Organisation) -> None:
    """A misspelt argument is named, and the error lists the arguments that the tool has."""
    async with connect(api.url, org.test.key) as client:
        problem = content(await client.call_tool("crm_search_contacts", {"phnoe": "1", "limit": 1}))
    assert [error["param"] for error in problem["errors"]] == ["phnoe"]
    assert problem["allowed"] == ["cursor", "email", "limit", "phone"]


async def test_the_version_guards_a_change(api: Api, org: Organisation, rest: httpx.AsyncClient) -> None:
    """`if_match` is the If-Match header: a stale version is refused."""
    made = (await rest.post("/crm/v1/contacts", json={"name": "Meera"})).json()
    async with connect(api.url, org.test.key) as client:

        async def rename(name: str) -> CallToolResult:
            return await client.call_tool(
                "crm_update_contact",
                {"id": made["id"], "name": name, "if_match": '"1"', "idempotency_key": unique_key()},
            )

        assert content(await rename("Asha"))["version"] == 2
        assert content(await rename("Mina"))["code"] == "version_conflict"
        wrong = {"id": made["id"], "name": "x", "if_match": "three", "idempotency_key": unique_key()}
        problem = content(await client.call_tool("crm_update_contact", wrong))
    assert (problem["code"], problem["param"]) == ("invalid_if_match", "if_match")


async def test_a_list_parameter_is_repeated(api: Api, org: Organisation, rest: httpx.AsyncClient) -> None:
    """A list argument of a read is a repeated query parameter."""
    for type in ("order.paid", "order.packed", "cart.left"):
        (await rest.post("/v1/events", json={"type": type, "data": {}})).raise_for_status()
    async with connect(api.url, org.test.key) as client:
        found = content(await client.call_tool("events_list", {"type": ["order.packed", "cart.*"]}))
    assert [event["type"] for event in found["data"]] == ["order.packed", "cart.left"]


async def test_tools_are_listed_and_called_by_scope(api: Api, org: Organisation, rest: httpx.AsyncClient) -> None:
    """A narrow key sees the tools of its scopes; another tool answers 403 `scope_missing`, as REST does (P-25, C-15)."""
    made = await rest.post("/v1/api_keys", json={"name": "narrow", "scopes": ["crm:read"]})
    narrow = made.json()["api_key"]
    async with connect(api.url, org.test.key) as wide, connect(api.url, narrow) as client:
        everything = {tool.name for tool in (await wide.list_tools()).tools}
        listed = await client.list_tools()
        tools = {tool.name: tool for tool in listed.tools}
        assert {"crm_get_contact", "crm_search_contacts"} <= tools.keys() < everything
        assert listed.cache_scope == "private"
        assert all(tool.annotations is not None and tool.annotations.read_only_hint for tool in listed.tools)
        assert not (await client.call_tool("crm_search_contacts", {})).is_error
        # The scope comes before the key and the arguments, as in REST.
        refused = await client.call_tool("crm_create_contact", {"nmae": 1})
    assert refused.is_error
    assert (content(refused)["status"], content(refused)["code"]) == (403, "scope_missing")


async def test_an_unknown_tool_is_a_protocol_error(api: Api, org: Organisation) -> None:
    """A tool that does not exist is a JSON-RPC error that names it."""
    async with connect(api.url, org.test.key) as client:
        with pytest.raises(MCPError, match="there is no tool 'crm_win_everything'"):
            await client.call_tool("crm_win_everything", {})


async def test_two_workspaces_on_one_server_stay_apart(api: Api, org: Organisation) -> None:
    """Interleaved calls of two workspaces, and of test and live keys, see only their own rows (P-14, P-15)."""
    accounts = [org.test, org.live, api.sign_up("Other").test]

    async def work(key: str, name: str) -> list[str]:
        async with connect(api.url, key) as client:
            made = []
            for number in range(5):
                result = await client.call_tool(
                    "crm_create_contact",
                    {"name": f"{name} {number}", "idempotency_key": f"same {number}".replace(" ", "-")},
                )
                made.append(content(result)["id"])
            names = [row["name"] for row in content(await client.call_tool("crm_search_contacts", {}))["data"]]
            assert sorted(names) == [f"{name} {number}" for number in range(5)]
            return made

    made = await asyncio.gather(*(work(account.key, f"of {number}") for number, account in enumerate(accounts)))
    async with connect(api.url, accounts[0].key) as client:
        for foreign in (*made[1], *made[2]):
            problem = content(await client.call_tool("crm_get_contact", {"id": foreign}))
            assert (problem["status"], problem["code"]) == (404, "not_found")


async def test_a_message_is_sent_by_a_tool(api: Api, org: Organisation, rest: httpx.AsyncClient) -> None:
    """`notifications_send`, an accept route, takes the same arguments as REST, and its result fits its output schema."""
    (
        await rest.post("/notifications/v1/templates", json={"slug": "hello", "bodies": {"sms": "Hello {{ name }}"}})
    ).raise_for_status()
    arguments = {"to": "+910000000000", "template": "hello", "channels": ["sms"], "vars": {"name": "Meera"}}
    async with connect(api.url, org.test.key) as client:
        schemas = {tool.name: tool.output_schema for tool in (await client.list_tools()).tools}
        sent = content(await client.call_tool("notifications_send", arguments | {"idempotency_key": unique_key()}))
        again = content(await client.call_tool("notifications_get_message", {"id": sent["id"]}))
        audit = content(await client.call_tool("notifications_audit_message", {"id": sent["id"]}))
        wrong = await client.call_tool(
            "notifications_send", arguments | {"channels": ["fax"], "idempotency_key": unique_key()}
        )
    assert sent["status"] == again["status"] == "queued"
    assert audit["data"]
    assert content(wrong)["param"].startswith("channels")
    for name, result in (("notifications_send", sent), ("notifications_audit_message", audit)):
        schema = schemas[name]
        assert schema is not None
        jsonschema.Draft202012Validator(schema).validate(result)
