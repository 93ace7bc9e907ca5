"""Every kind of breaking change is found, and no addition is taken for one."""

import copy
from collections.abc import Callable
from typing import Any, Final

import pytest

from products.openapi_changes.document_changes import breaking_changes

Document = dict[str, Any]
_ERROR: Final = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Error"}}}
DOCUMENT: Final[Document] = {
    "paths": {
        "/things": {
            "get": {
                "operationId": "list_things",
                "x-scope": "things:read",
                "parameters": [
                    {"$ref": "#/components/parameters/Limit"},
                    {"name": "color", "in": "query", "schema": {"type": "string", "enum": ["red", "blue"]}},
                ],
                "responses": {
                    "200": {
                        "headers": {"Request-Id": {"$ref": "#/components/headers/RequestId"}},
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/PageOfThing"}}},
                    },
                    "404": {"$ref": "#/components/responses/Problem404"},
                },
            },
            "post": {
                "operationId": "create_thing",
                "x-scope": "things:write",
                "x-events": ["thing.created"],
                "x-mcp-tool": "things_create",
                "requestBody": {
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ThingCreate"}}}
                },
                "responses": {
                    "201": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}}}
                },
            },
        },
        "/open": {"get": {"operationId": "look", "security": [], "responses": {"200": {}}}},
    },
    "webhooks": {
        "thing.created": {
            "post": {
                "operationId": "on_thing_created",
                "parameters": [{"name": "webhook-id", "in": "header", "schema": {"type": "string"}}],
                "requestBody": {
                    "content": {
                        "application/json": {
                            "schema": {
                                "allOf": [
                                    {"$ref": "#/components/schemas/Event"},
                                    {
                                        "type": "object",
                                        "properties": {
                                            "type": {"type": "string", "const": "thing.created"},
                                            "data": {"$ref": "#/components/schemas/Thing"},
                                        },
                                    },
                                ]
                            }
                        }
                    }
                },
            }
        }
    },
    "components": {
        "parameters": {
            "Limit": {"name": "limit", "in": "query", "schema": {"type": "integer", "maximum": 100, "default": 25}}
        },
        "headers": {"RequestId": {"schema": {"type": "string"}}},
        "responses": {"Problem404": {"content": _ERROR}},
        "schemas": {
            "Error": {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]},
            "Event": {
                "type": "object",
                "properties": {"id": {"type": "string"}, "type": {"type": "string"}, "data": {"type": "object"}},
                "required": ["id", "type", "data"],
            },
            "Page": {"type": "object", "properties": {"has_more": {"type": "boolean"}}, "required": ["has_more"]},
            "PageOfThing": {
                "allOf": [
                    {"$ref": "#/components/schemas/Page"},
                    {
                        "type": "object",
                        "properties": {"data": {"type": "array", "items": {"$ref": "#/components/schemas/Thing"}}},
                        "required": ["data"],
                    },
                ]
            },
            "ThingCreate": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "name": {"type": "string", "minLength": 1, "maxLength": 200},
                    "size": {"anyOf": [{"type": "number", "minimum": 0}, {"type": "null"}]},
                    "kind": {"type": "string", "enum": ["a", "b"], "default": "a"},
                    "notes": {"type": "array", "items": {"type": "string"}, "maxItems": 5},
                    "extra": {"type": "object", "additionalProperties": {"type": "string"}, "default": {"a": "1"}},
                },
                "required": ["name"],
            },
            "Thing": {
                "type": "object",
                "properties": {
                    "id": {"type": "string", "pattern": "^thg_"},
                    "name": {"type": "string", "maxLength": 200},
                    "size": {"type": "number"},
                    "state": {"type": "string", "enum": ["open", "done"]},
                    "at": {"type": "string", "format": "date-time"},
                    "owner": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                    "note": {"type": "string"},
                },
                "required": ["id", "name", "size", "state", "at", "owner"],
            },
        },
    },
}


class Parts:
    """A document, and the parts of it that mutations change."""

    def __init__(self) -> None:
        self.document = copy.deepcopy(DOCUMENT)
        self.paths = self.document["paths"]
        self.listing = self.paths["/things"]["get"]
        self.creating = self.paths["/things"]["post"]
        self.webhooks = self.document["webhooks"]
        self.components = self.document["components"]
        self.limit = self.components["parameters"]["Limit"]
        self.asked = self.components["schemas"]["ThingCreate"]
        self.told = self.components["schemas"]["Thing"]


Mutation = Callable[[Parts], Any]
ASKED: Final[dict[str, Mutation]] = {
    "body.name: maxLength was 200, is 50": lambda p: p.asked["properties"]["name"].update(maxLength=50),
    "body.name: minLength was 1, is 2": lambda p: p.asked["properties"]["name"].update(minLength=2),
    "body.name: pattern was None, is '^x'": lambda p: p.asked["properties"]["name"].update(pattern="^x"),
    "body.name: format was None, is 'email'": lambda p: p.asked["properties"]["name"].update(format="email"),
    "body.name: type string where integer is read": lambda p: p.asked["properties"].update(name={"type": "integer"}),
    "body.name: the field is gone": lambda p: (p.asked["properties"].pop("name"), p.asked["required"].clear()),
    "body.kind: values b is no longer accepted": lambda p: p.asked["properties"]["kind"].update(enum=["a"]),
    "body.kind: the default was 'a', is 'b'": lambda p: p.asked["properties"]["kind"].update(default="b"),
    "body.extra: the default was {'a': '1'}, is {'a': '2'}": lambda p: p.asked["properties"]["extra"].update(
        default={"a": "2", "b": "3"}
    ),
    "body.name: values of any kind are no longer accepted": lambda p: p.asked["properties"]["name"].update(enum=["x"]),
    "body.kind: the field became required": lambda p: p.asked["required"].append("kind"),
    "body.new: a new field is required": lambda p: (
        p.asked["properties"].update(new={"type": "string"}),
        p.asked["required"].append("new"),
    ),
    "body.size: null is no longer accepted": lambda p: p.asked["properties"].update(
        size={"type": "number", "minimum": 0}
    ),
    "body.size: type number where integer is read": lambda p: p.asked["properties"]["size"]["anyOf"][0].update(
        type="integer"
    ),
    "body.size: minimum was 0, is 1": lambda p: p.asked["properties"]["size"]["anyOf"][0].update(minimum=1),
    "body.notes: maxItems was 5, is 4": lambda p: p.asked["properties"]["notes"].update(maxItems=4),
    "body.notes[]: type string": lambda p: p.asked["properties"]["notes"].update(items={"type": "integer"}),
    "body.notes: uniqueItems was None, is True": lambda p: p.asked["properties"]["notes"].update(uniqueItems=True),
    "body.extra: further fields are no longer accepted": lambda p: p.asked["properties"]["extra"].update(
        additionalProperties=False
    ),
    "body.extra.*: maxLength was None, is 9": lambda p: p.asked["properties"]["extra"].update(
        additionalProperties={"type": "string", "maxLength": 9}
    ),
    "POST /things: the body became required": lambda p: p.creating["requestBody"].update(required=True),
    "the body is gone": lambda p: p.creating.pop("requestBody"),
    "bodies of type application/json are no longer accepted": lambda p: p.creating["requestBody"].update(content={}),
    "GET /things: a body became required": lambda p: p.listing.update(requestBody={"required": True, "content": {}}),
    "limit: maximum was 100, is 50": lambda p: p.limit["schema"].update(maximum=50),
    "limit: the default was 25, is 50": lambda p: p.limit["schema"].update(default=50),
    "limit: the parameter became required": lambda p: p.limit.update(required=True),
    "limit: the parameter is gone": lambda p: p.listing["parameters"].pop(0),
    "color: values blue is no longer accepted": lambda p: p.listing["parameters"][1]["schema"].update(enum=["red"]),
    "new: a new parameter is required": lambda p: p.listing["parameters"].append(
        {"name": "new", "in": "query", "required": True, "schema": {}}
    ),
}
"""What an old client sends and the new server refuses."""
TOLD: Final[dict[str, Mutation]] = {
    ".name: the field is gone": lambda p: (p.told["properties"].pop("name"), p.told["required"].remove("name")),
    ".note: the field is gone": lambda p: p.told["properties"].pop("note"),
    ".name: the field is no longer always there": lambda p: p.told["required"].remove("name"),
    ".name: null is new": lambda p: p.told["properties"].update(name={"anyOf": [{"type": "string"}, {"type": "null"}]}),
    ".name: maxLength was 200, is 500": lambda p: p.told["properties"]["name"].update(maxLength=500),
    ".name: maxLength was 200, is None": lambda p: p.told["properties"]["name"].pop("maxLength"),
    ".size: type string where number is read": lambda p: p.told["properties"].update(size={"type": "string"}),
    ".state: values gone is new": lambda p: p.told["properties"]["state"]["enum"].append("gone"),
    ".state: values of any kind are new": lambda p: p.told["properties"]["state"].pop("enum"),
    ".at: format was 'date-time', is None": lambda p: p.told["properties"]["at"].pop("format"),
    ".id: pattern was '^thg_', is '^thing_'": lambda p: p.told["properties"]["id"].update(pattern="^thing_"),
    ".owner: type integer": lambda p: p.told["properties"]["owner"]["anyOf"].append({"type": "integer"}),
}
"""What the new server sends and an old client, or receiver of events, does not understand."""
NAMED: Final[dict[str, Mutation]] = {
    "GET /things: the operation is gone": lambda p: p.paths["/things"].pop("get"),
    "GET /open: the operation is gone": lambda p: p.paths.pop("/open"),
    "the method name was list_things, is read_things": lambda p: p.listing.update(operationId="read_things"),
    "the scope was things:read, is all:read": lambda p: p.listing.update({"x-scope": "all:read"}),
    "the tool name was things_create, is things_make": lambda p: p.creating.update({"x-mcp-tool": "things_make"}),
    "GET /open: a key became necessary": lambda p: p.paths["/open"]["get"].pop("security"),
    "thing.created is no longer emitted": lambda p: p.creating.update({"x-events": []}),
    "thing.created: the event type is gone": lambda p: p.webhooks.clear(),
    "thing.created: the method name was": lambda p: p.webhooks["thing.created"]["post"].update(operationId="other"),
    "thing.created: the header webhook-id is gone": lambda p: p.webhooks["thing.created"]["post"].pop("parameters"),
    "201: the response is gone": lambda p: p.creating["responses"].clear(),
    "POST /things 202: a success with a new status": lambda p: p.creating["responses"].update({"202": {}}),
    "200: responses of type application/json are gone": lambda p: p.listing["responses"]["200"].update(content={}),
    "200: the header Request-Id is gone": lambda p: p.listing["responses"]["200"].pop("headers"),
    "404.code: the field is gone": lambda p: p.components["schemas"].update(Error={"type": "object"}),
    "200.has_more: the field is gone": lambda p: p.components["schemas"].update(Page={"type": "object"}),
    "Page: the schema is gone": lambda p: p.components["schemas"]["PageOfThing"]["allOf"].__setitem__(
        0, p.components["schemas"].pop("Page")
    ),
}
ADDITIONS: Final[dict[str, Mutation]] = {
    "a field in a request": lambda p: p.asked["properties"].update(new={"type": "string"}),
    "a value in a request": lambda p: p.asked["properties"]["kind"]["enum"].append("c"),
    "null in a request": lambda p: p.asked["properties"].update(
        name={"anyOf": [{"type": "string", "minLength": 1, "maxLength": 200}, {"type": "null"}]}
    ),
    "a type in a request": lambda p: p.asked["properties"]["size"]["anyOf"].append({"type": "string"}),
    "a wider limit in a request": lambda p: p.asked["properties"]["name"].update(minLength=0, maxLength=300),
    "no limit in a request": lambda p: p.asked["properties"]["notes"].pop("maxItems"),
    "a field of a request that is optional now": lambda p: p.asked["required"].clear(),
    "a default": lambda p: p.asked["properties"]["name"].update(default="x"),
    "a field in a default": lambda p: p.asked["properties"]["extra"].update(default={"a": "1", "b": "3"}),
    "a field in a response": lambda p: p.told["properties"].update(new={"type": "string"}),
    "a field of a response that is always there now": lambda p: p.told["required"].append("note"),
    "fewer values in a response": lambda p: p.told["properties"]["state"].update(enum=["open"]),
    "no null in a response": lambda p: p.told["properties"].update(owner={"type": "string"}),
    "a narrower limit in a response": lambda p: p.told["properties"]["name"].update(maxLength=100, minLength=1),
    "integers for numbers in a response": lambda p: p.told["properties"]["size"].update(type="integer"),
    "an operation": lambda p: p.paths.update({"/new": {"get": {"operationId": "new", "responses": {}}}}),
    "a tool": lambda p: p.listing.update({"x-mcp-tool": "things_list"}),
    "a parameter": lambda p: p.listing["parameters"].append({"name": "new", "in": "query", "schema": {}}),
    "an event type": lambda p: p.webhooks.update({"thing.lost": {}}),
    "an emitted event": lambda p: p.creating["x-events"].append("thing.lost"),
    "an error": lambda p: p.creating["responses"].update({"409": {"$ref": "#/components/responses/Problem404"}}),
    "texts": lambda p: p.told.update(title="Thing", description="A thing.", examples=[{}]),
    "a schema in a place of its own": lambda p: (
        p.components["schemas"].update(Kind=p.asked["properties"]["kind"]),
        p.asked["properties"].update(kind={"$ref": "#/components/schemas/Kind", "default": "a"}),
    ),
}


def changed(mutation: Mutation) -> list[str]:
    """Return what breaks after a mutation."""
    parts = Parts()
    mutation(parts)
    assert parts.document != DOCUMENT
    return breaking_changes(DOCUMENT, parts.document)


def test_a_document_breaks_nothing_of_itself() -> None:
    """Equal documents have no breaking change."""
    assert breaking_changes(DOCUMENT, copy.deepcopy(DOCUMENT)) == []


@pytest.mark.parametrize("message", [*ASKED, *NAMED])
def test_what_breaks_a_caller_is_found(message: str) -> None:
    """Each narrowed request, and each lost name, operation, event or response, is named with its place."""
    found = changed({**ASKED, **NAMED}[message])
    assert any(message in change for change in found), found


@pytest.mark.parametrize("message", TOLD)
def test_what_breaks_a_reader_is_found(message: str) -> None:
    """Each widened response is found in the response, in the page that holds it and in the data of the event."""
    found = changed(TOLD[message])
    for place in ("POST /things 201", "GET /things 200.data[]", "thing.created.data"):
        assert any(change.startswith(place) and message in change for change in found), (place, found)


@pytest.mark.parametrize("name", ADDITIONS)
def test_additions_pass(name: str) -> None:
    """What old callers and receivers do not notice is no breaking change."""
    assert changed(ADDITIONS[name]) == []


def test_the_direction_counts() -> None:
    """A schema that requests and responses share may be neither narrowed nor widened."""
    shared = copy.deepcopy(DOCUMENT)
    body = shared["paths"]["/things"]["post"]["requestBody"]["content"]["application/json"]
    body["schema"] = {"$ref": "#/components/schemas/Thing"}
    for limit, place in ((100, "body.name"), (300, "201.name")):
        other = copy.deepcopy(shared)
        other["components"]["schemas"]["Thing"]["properties"]["name"]["maxLength"] = limit
        assert any(place in change for change in breaking_changes(shared, other))


def test_a_schema_that_contains_itself_is_compared() -> None:
    """Recursion ends, and a change below it is found."""
    tree = copy.deepcopy(DOCUMENT)
    tree["components"]["schemas"]["Thing"]["properties"]["parts"] = {
        "type": "array",
        "items": {"$ref": "#/components/schemas/Thing"},
    }
    other = copy.deepcopy(tree)
    other["components"]["schemas"]["Thing"]["properties"]["parts"]["maxItems"] = 3
    assert breaking_changes(tree, other) == []
    assert any("parts: maxItems" in change for change in breaking_changes(other, tree))
