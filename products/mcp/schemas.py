"""Schemas of tools: parts of an OpenAPI document as JSON Schemas that stand alone (2020-12)."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

Schema = dict[str, Any]

_REF: Final = "#/components/schemas/"
_DEFS: Final = "#/$defs/"


def resolved(schema: Schema, components: Mapping[str, Schema]) -> Schema:
    """Return the schema that a reference leads to, or the schema itself."""
    while "$ref" in schema:
        schema = components[schema["$ref"].removeprefix(_REF)]
    return schema


def without_null(schema: Schema) -> Schema:
    """Return the only alternative beside null, or the schema itself."""
    others = [part for part in schema.get("anyOf", ()) if part.get("type") != "null"]
    return others[0] if len(others) == 1 else schema


def object_schema(alternatives: Iterable[Schema], components: Mapping[str, Schema]) -> Schema:
    """Return one schema of type object for these alternatives. Older revisions of MCP demand the type at the root."""
    found = list(alternatives)
    if len(found) == 1:
        return with_definitions({"type": "object"} | resolved(found[0], components), components)
    return with_definitions({"type": "object", "anyOf": found}, components)


def with_definitions(schema: Schema, components: Mapping[str, Schema]) -> Schema:
    """Return the schema with all that it refers to under `$defs`."""
    wanted: dict[str, Schema] = {}
    queue = [schema]
    while queue:
        for name in re.findall(re.escape(f'"{_REF}') + r'([^"]+)"', json.dumps(queue.pop())):
            if name not in wanted:
                wanted[name] = components[name]
                queue.append(components[name])
    whole = schema | ({"$defs": {name: wanted[name] for name in sorted(wanted)}} if wanted else {})
    made: Schema = json.loads(json.dumps(whole).replace(f'"{_REF}', f'"{_DEFS}'))
    return made
