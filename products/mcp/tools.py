"""Tools, read off the operations of the OpenAPI document: each operation that declares a `tool` is one.

A tool's arguments are the operation's path and query parameters, the fields of its body, `if_match` where it takes the header,
and `idempotency_key` where it changes data (wire.md, "Everywhere").
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from products.mcp.schemas import Schema, object_schema, resolved, with_definitions, without_null
from spine.kernel.idempotency import HEADER
from spine.kernel.openapi.operations import parameters_of

IDEMPOTENCY_KEY: Final = "idempotency_key"
_KEY_TEXT: Final = (
    "A new one for each new call, such as a UUID. The same key with the same arguments gets the first result again for 24 hours;"
    " with other arguments it is refused."
)
_OBJECT_KEYWORDS: Final = {"type", "title", "description", "properties", "required", "additionalProperties"}


@dataclass(frozen=True, slots=True)
class Argument:
    """Where an argument goes in the request, under which name, and whether it is a list (of a query parameter)."""

    place: Literal["path", "query", "header", "body"]
    name: str
    many: bool = False


@dataclass(frozen=True, slots=True)
class Tool:
    """One operation as a tool."""

    name: str
    title: str
    description: str
    scope: str
    method: str
    path: str
    arguments: Mapping[str, Argument]
    body: Literal["required", "optional", "none"]
    open_body: bool
    """True if the body takes fields that its schema does not name."""
    input_schema: Schema
    output_schema: Schema
    read_only: bool
    creates: bool
    """True if it only adds something new, and changes nothing that is there."""

    @property
    def takes_key(self) -> bool:
        """True if it takes an idempotency key."""
        return IDEMPOTENCY_KEY in self.arguments


def read_tools(document: Mapping[str, Any]) -> dict[str, Tool]:
    """Return the tools of an OpenAPI document by their names. Raises ValueError if two operations declare the same one."""
    tools: dict[str, Tool] = {}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if "x-mcp-tool" in operation:
                whole = {**operation, "parameters": parameters_of(operation, document)}
                tool = _tool(path, method, whole, document["components"]["schemas"])
                if tool.name in tools:
                    raise ValueError(f"the tool {tool.name} is declared twice")
                tools[tool.name] = tool
    return tools


def _tool(path: str, method: str, operation: Mapping[str, Any], components: Mapping[str, Schema]) -> Tool:
    name: str = operation["x-mcp-tool"]
    arguments: dict[str, Argument] = {}
    properties: dict[str, Schema] = {}
    required: list[str] = []
    body, required_body = _body(operation, components)
    parameters, headers = _parameters(operation)
    for argument, schema, is_required, target in (
        *parameters,
        *_fields(body, required_body=required_body),
        *headers,
    ):
        if argument in arguments:
            raise ValueError(f"the tool {name} has two arguments {argument}")
        arguments[argument] = target
        properties[argument] = schema
        required += [argument] if is_required else []
    successes = {status: answer for status, answer in operation["responses"].items() if status.startswith("2")}
    input_schema: Schema = {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": body.get("additionalProperties", False) if body else False,
    }
    return Tool(
        name=name,
        title=operation["summary"],
        description="\n\n".join(filter(None, (operation["summary"] + ".", operation.get("description")))),
        scope=operation["x-scope"],
        method=method.upper(),
        path=path,
        arguments=arguments,
        body="none" if body is None else "required" if required_body else "optional",
        open_body=input_schema["additionalProperties"] is not False,
        input_schema=with_definitions(input_schema, components),
        output_schema=object_schema(
            (answer["content"]["application/json"]["schema"] for answer in successes.values()), components
        ),
        read_only=method == "get" or operation["x-scope"].endswith(":read"),
        creates=set(successes) == {"201"},
    )


_Described = tuple[str, Schema, bool, Argument]
"""An argument: its name, its schema, whether it is required, and where it goes."""


def _parameters(operation: Mapping[str, Any]) -> tuple[list[_Described], list[_Described]]:
    """Return the arguments that go into the path and the query, and those that go into headers."""
    url: list[_Described] = []
    headers: list[_Described] = []
    for parameter in operation["parameters"]:
        name, place = parameter["name"], parameter["in"]
        schema: Schema = {key: value for key, value in parameter["schema"].items() if key != "title"}
        if "description" in parameter:
            schema["description"] = parameter["description"]
        if name == HEADER:
            schema["description"] = _KEY_TEXT
        many = without_null(schema).get("type") == "array"
        required = parameter.get("required", False)
        if place == "header":
            headers.append((name.lower().replace("-", "_"), schema, required, Argument(place, name)))
        else:
            url.append((name, schema, required, Argument(place, name, many)))
    return url, headers


def _body(operation: Mapping[str, Any], components: Mapping[str, Schema]) -> tuple[Schema | None, bool]:
    """Return the schema of the body's object, None without one, and whether the body is required. Raises ValueError."""
    if "requestBody" not in operation:
        return None, False
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    body = resolved(without_null(schema), components)
    if body.get("type") != "object" or body.keys() - _OBJECT_KEYWORDS:
        raise ValueError(f"the body of the tool {operation['x-mcp-tool']} cannot be arguments: it is no plain object")
    return body, bool(operation["requestBody"].get("required"))


def _fields(body: Schema | None, *, required_body: bool) -> Iterator[_Described]:
    """Yield the arguments of a body's fields. Of a body that may be left out no field is required."""
    for name, schema in (body or {}).get("properties", {}).items():
        plain = {key: value for key, value in schema.items() if key != "title"}
        yield name, plain, required_body and name in (body or {}).get("required", ()), Argument("body", name)
