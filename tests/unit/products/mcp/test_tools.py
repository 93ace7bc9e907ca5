"""Tools are read off operations: their arguments, schemas and hints."""

from typing import Any

import jsonschema
import pytest

from products.mcp.tools import Argument, read_tools
from spine.kernel.routes import declares

STRING = {"type": "string"}
SCHEMAS: dict[str, Any] = {
    "Move": {
        "type": "object",
        "title": "Move",
        "properties": {"to": {"$ref": "#/components/schemas/Stage"}, "reason": {"title": "Reason", "type": "string"}},
        "required": ["to"],
        "additionalProperties": False,
    },
    "Stage": {"enum": ["new", "won"], "type": "string"},
    "Tree": {
        "type": "object",
        "properties": {"below": {"type": "array", "items": {"$ref": "#/components/schemas/Tree"}}},
    },
    "Other": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
}
KEY = {"name": "Idempotency-Key", "in": "header", "required": True, "schema": STRING}
ID = {"name": "id", "in": "path", "required": True, "schema": STRING, "description": "Which one."}


def ref(name: str) -> dict[str, Any]:
    """A reference to a component."""
    return {"$ref": f"#/components/schemas/{name}"}


def operation(body: Any = None, *parameters: Any, required: Any = True, **changes: Any) -> dict[str, Any]:
    """An operation that is a tool."""
    content = {"application/json": {"schema": body}}
    return {
        "summary": "Move a lead",
        "x-scope": "crm:write",
        "x-mcp-tool": "crm_move_lead",
        "parameters": list(parameters),
        "responses": {"200": {"content": {"application/json": {"schema": ref("Tree")}}}, "404": {}},
        **({"requestBody": {"required": required, "content": content}} if body else {}),
        **changes,
    }


def document(**operations: Any) -> dict[str, Any]:
    """An OpenAPI document with these operations, by method."""
    return {"paths": {"/crm/v1/leads/{id}": operations}, "components": {"schemas": SCHEMAS}}


def test_arguments_are_path_query_body_and_key() -> None:
    """Every field is one argument, in the order path, query, body, headers, and its place in the request is kept."""
    many = {"name": "tag", "in": "query", "schema": {"anyOf": [{"type": "array", "items": STRING}, {"type": "null"}]}}
    version = {"name": "If-Match", "in": "header", "schema": STRING}
    [tool] = read_tools(document(post=operation(ref("Move"), version, KEY, ID, many))).values()
    assert dict(tool.arguments) == {
        "id": Argument("path", "id"),
        "tag": Argument("query", "tag", many=True),
        "to": Argument("body", "to"),
        "reason": Argument("body", "reason"),
        "if_match": Argument("header", "If-Match"),
        "idempotency_key": Argument("header", "Idempotency-Key"),
    }
    assert tool.input_schema["required"] == ["id", "to", "idempotency_key"]
    assert tool.input_schema["properties"]["id"] == {"type": "string", "description": "Which one."}
    valid = jsonschema.Draft202012Validator(tool.input_schema).is_valid
    assert valid({"id": "x", "to": "won", "idempotency_key": "k"})
    assert not valid({"id": "x", "to": "lost", "idempotency_key": "k"})
    assert not valid({"id": "x", "to": "won", "idempotency_key": "k", "unknown": 1})


def test_a_recursive_result_stands_alone() -> None:
    """A schema that refers to itself is given with all its definitions."""
    [tool] = read_tools(document(get=operation())).values()
    validator = jsonschema.Draft202012Validator(tool.output_schema)
    assert validator.is_valid({"below": [{"below": []}]})
    assert not validator.is_valid({"below": [{"below": 1}]})


def test_a_body_that_may_be_left_out_requires_nothing() -> None:
    """The fields of an optional body are optional arguments."""
    optional = {"anyOf": [ref("Move"), {"type": "null"}]}
    [tool] = read_tools(document(post=operation(optional, ID, KEY, required=False))).values()
    assert (tool.body, tool.input_schema["required"]) == ("optional", ["id", "idempotency_key"])
    assert "to" in tool.arguments


def test_a_body_with_free_fields_takes_them_as_arguments() -> None:
    """A body that is a map of any names lets unknown arguments through to the operation."""
    [tool] = read_tools(document(patch=operation({"type": "object", "additionalProperties": STRING}, ID, KEY))).values()
    assert tool.open_body
    assert jsonschema.Draft202012Validator(tool.input_schema).is_valid(
        {"id": "x", "idempotency_key": "k", "anything": "text"}
    )


def test_two_kinds_of_success_are_alternatives_of_an_object() -> None:
    """An operation with two successful answers has a schema of type object that takes both."""
    answers = {
        status: {"content": {"application/json": {"schema": ref(name)}}}
        for status, name in {"200": "Other", "201": "Move"}.items()
    }
    [tool] = read_tools(document(post=operation(responses=answers))).values()
    assert tool.output_schema["type"] == "object"
    valid = jsonschema.Draft202012Validator(tool.output_schema).is_valid
    assert (valid({"n": 1}), valid({"to": "won"}), valid({"n": "x"})) == (True, True, False)


@pytest.mark.parametrize(
    ("method", "scope", "status", "hints"),
    [
        ("get", "crm:read", "200", (True, False)),
        ("post", "crm:read", "200", (True, False)),
        ("post", "crm:write", "201", (False, True)),
        ("post", "crm:write", "200", (False, False)),
        ("delete", "crm:write", "200", (False, False)),
    ],
)
def test_hints_follow_from_the_operation(method: str, scope: str, status: str, hints: tuple[bool, bool]) -> None:
    """Reads change nothing; a 201 only adds; every other change may destroy."""
    answers = {status: {"content": {"application/json": {"schema": ref("Tree")}}}}
    [tool] = read_tools(document(**{method: operation(**{"x-scope": scope, "responses": answers})})).values()
    assert (tool.read_only, tool.creates) == hints


@pytest.mark.parametrize(
    ("operations", "reason"),
    [
        ({"get": operation(), "post": operation()}, "declared twice"),
        ({"post": operation(ref("Move"), {"name": "to", "in": "query", "schema": STRING})}, "two arguments to"),
        ({"post": operation({"type": "array", "items": STRING})}, "no plain object"),
        ({"post": operation({"type": "object", "minProperties": 1})}, "no plain object"),
    ],
    ids=["names", "arguments", "array", "keywords"],
)
def test_what_cannot_be_a_tool_is_refused(operations: dict[str, Any], reason: str) -> None:
    """A name that is taken, two arguments of one name and a body that is no plain object are faults of the code."""
    with pytest.raises(ValueError, match=reason):
        read_tools(document(**operations))


def test_only_operations_that_declare_a_tool_are_tools() -> None:
    """`declares(..., tool=...)` is what makes a tool."""
    declared = declares("crm:write", tool="crm_win_deal")
    undeclared = declares("crm:write")
    assert declared == undeclared | {"x-mcp-tool": "crm_win_deal"}
    plain = {key: value for key, value in operation().items() if key != "x-mcp-tool"}
    assert read_tools(document(post=plain | undeclared)) == {}
    assert list(read_tools(document(post=plain | declared))) == ["crm_win_deal"]
