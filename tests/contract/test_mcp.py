"""The tools of MCP and the operations they are read off agree, and results fit the schemas that the tools show."""

import json
import re
import subprocess
import sys
from typing import Any, Final

import jsonschema
import pytest

from products.mcp.tools import Tool, read_tools
from tests.api import Api, unique_key
from tests.contract.specification import OPERATIONS, SPINE, Operation
from tests.mcp_client import call, rpc
from tests.one_of_each import OneOfEach, create_one_of_each
from tests.servers import ROOT

TOOLS: Final = read_tools(SPINE)
BY_TOOL: Final[dict[str, Operation]] = {
    operation.spec["x-mcp-tool"]: operation for operation in OPERATIONS if "x-mcp-tool" in operation.spec
}
PROMISED: Final = {
    "GET /crm/v1/leads": "crm_search_leads",
    "POST /crm/v1/leads": "crm_create_lead",
    "POST /crm/v1/leads/{id}/move": "crm_move_lead",
    "GET /crm/v1/call_sessions/{id}/context": "crm_get_context",
    "POST /crm/v1/deals/{id}/win": "crm_win_deal",
    "POST /works/v1/projects": "works_scaffold_project",
    "GET /works/v1/queues/{id}": "works_list_open_tasks",
    "POST /works/v1/tasks/{id}/complete": "works_complete_task",
    "POST /works/v1/milestones/{id}/reach": "works_reach_milestone",
    "GET /tickets/v1/tickets/queue": "tickets_list_queue",
    "POST /tickets/v1/tickets/{id}/triage": "tickets_triage",
    "POST /tickets/v1/tickets/{id}/thread_entries": "tickets_reply",
    "GET /calendar/v1/slots": "calendar_availability",
    "POST /calendar/v1/appointments": "calendar_book",
    "POST /notifications/v1/messages": "notifications_send",
}
"""The tools that products.md names, by their operations."""
every_tool = pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS)


def test_the_promised_operations_are_tools() -> None:
    """An operation that products.md names as a tool is that tool."""
    served = {str(operation): operation.spec.get("x-mcp-tool") for operation in OPERATIONS}
    assert {name: served.get(name) for name in PROMISED} == PROMISED


@every_tool
def test_a_name_begins_with_its_product(tool: Tool) -> None:
    """A tool is named `<product>_<verb>_<noun>`, in at most 64 characters; in the platform its scope stands for the product."""
    first = BY_TOOL[tool.name].path.split("/")[1]
    product = tool.scope.partition(":")[0] if first == "v1" else first
    assert re.fullmatch(rf"{product}(_[a-z]+)+", tool.name)
    assert len(tool.name) <= 64


@every_tool
def test_the_schemas_are_valid_and_stand_alone(tool: Tool) -> None:
    """Both schemas are valid JSON Schema 2020-12 of type object, and each reference has its target inside the schema."""
    for schema in (tool.input_schema, tool.output_schema):
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema["type"] == "object"
        text = json.dumps(schema)
        assert "#/components" not in text
        assert set(re.findall(r'"#/\$defs/([^"]+)"', text)) == set(schema.get("$defs", {}))


@every_tool
def test_the_arguments_are_the_fields_of_the_operation(tool: Tool) -> None:
    """The arguments are the REST fields, and a required `idempotency_key` where the operation demands the header (wire.md)."""
    operation = BY_TOOL[tool.name]
    parameters = {item["name"].lower().replace("-", "_") for item in operation.spec.get("parameters", ())}
    body = operation.body()
    assert parameters <= set(tool.input_schema["properties"])
    assert not isinstance(body, dict) or body.keys() <= tool.input_schema["properties"].keys()
    assert ("idempotency_key" in tool.input_schema["required"]) == operation.mutating
    assert ("idempotency_key" in tool.input_schema["properties"]) == operation.mutating
    assert all(value.get("type") or len(value) for value in tool.input_schema["properties"].values())


@pytest.fixture(scope="module")
def workspace(api: Api) -> tuple[str, OneOfEach]:
    """The key of a workspace with one resource of each kind, and their ids."""
    account = api.sign_up().test
    return account.key, create_one_of_each(account, api.database_url)


def arguments_of(tool: Tool, resources: OneOfEach) -> dict[str, Any]:
    """Return arguments that the tool takes: an id that is there, a valid body, and a new key."""
    operation = BY_TOOL[tool.name]
    arguments: dict[str, Any] = dict(operation.body() or {})
    for name, argument in tool.arguments.items():
        if argument.place == "path":
            before = tool.path.partition(f"/{{{argument.name}}}")[0]
            arguments[name] = resources.by_collection[before.rpartition("/")[2]]
    if tool.takes_key:
        arguments["idempotency_key"] = unique_key()
    return arguments


@every_tool
def test_a_result_fits_the_output_schema(tool: Tool, api: Api, workspace: tuple[str, OneOfEach]) -> None:
    """Valid arguments pass the input schema; the result of the call fits the output schema, or says which rule refused it."""
    key, resources = workspace
    arguments = arguments_of(tool, resources)
    jsonschema.Draft202012Validator(tool.input_schema).validate(arguments)
    result = call(api.url, key, tool.name, **arguments)
    found = result["structuredContent"]
    assert json.loads(result["content"][0]["text"]) == found
    if result.get("isError"):
        assert not tool.read_only
        assert found["status"] in (404, 409, 422)
        assert found["code"] != "validation_failed"
    else:
        jsonschema.Draft202012Validator(tool.output_schema).validate(found)


def _in_any_order(schema: dict[str, Any]) -> dict[str, Any]:
    """The committed document is sorted, so required arguments come in another order than the served ones."""
    return schema | {"required": sorted(schema["required"])}


def test_the_server_lists_exactly_these_tools(api: Api, workspace: tuple[str, OneOfEach]) -> None:
    """The list over HTTP is what is read off the committed document, with hints that follow from the operation."""
    listed = {tool["name"]: tool for tool in rpc(api.url, workspace[0], "tools/list").json()["result"]["tools"]}
    assert listed.keys() == TOOLS.keys()
    for name, tool in TOOLS.items():
        shown = listed[name]
        assert _in_any_order(shown["inputSchema"]) == _in_any_order(tool.input_schema)
        assert shown["outputSchema"] == tool.output_schema
        assert shown["description"].startswith(BY_TOOL[name].spec["summary"])
        assert shown["annotations"]["idempotentHint"] is True
        assert shown["annotations"]["readOnlyHint"] == tool.read_only
    assert listed["crm_create_contact"]["annotations"] == {
        "readOnlyHint": False,
        "destructiveHint": False,
        "idempotentHint": True,
    }
    assert listed["crm_update_contact"]["annotations"]["destructiveHint"] is True


def test_the_api_starts_without_the_sdk() -> None:
    """Importing the API does not import the SDK, which is half a second of its start."""
    program = "import products.app, sys; print(sorted({'mcp', 'mcp_types'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
