"""Schemas of a document: their public names, the page envelope, and which of them a document refers to."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

REF: Final = "#/components/schemas/"
_SCHEMA_MAPS: Final = ("properties", "patternProperties", "$defs", "dependentSchemas")
_SCHEMA_VALUES: Final = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")
_SCHEMA_LISTS: Final = ("anyOf", "oneOf", "allOf", "prefixItems")


def subschemas(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a schema and every schema inside it. `properties` may contain a field named as a keyword, so keywords are known."""
    yield schema
    parts = [part for key in _SCHEMA_MAPS for part in schema.get(key, {}).values()]
    parts += [part for key in _SCHEMA_LISTS for part in schema.get(key, ())]
    parts += [schema[key] for key in _SCHEMA_VALUES if key in schema]
    for part in parts:
        if isinstance(part, dict):
            yield from subschemas(part)


def without_titles(schema: dict[str, Any]) -> None:
    """Remove the titles that Pydantic derives from names: generators take them for type names, and many are equal."""
    for part in subschemas(schema):
        part.pop("title", None)


def public_names(keys: list[str], chosen: Mapping[type[Any], str]) -> dict[str, str]:
    """Return the new name of each schema that gets one.

    `chosen` are the names of models that the catalogue fixes. Models that share a class name, which FastAPI names by their
    modules, get the product's name before it, and the module's too if that is not enough. Raises ValueError if a name
    is still taken.
    """
    names: dict[str, str] = {}
    for model, name in chosen.items():
        by_module = f"{model.__module__}.{model.__qualname__}".replace(".", "__")
        names[by_module if by_module in keys else model.__qualname__] = name
    for key in keys:
        if key not in names and "__" in key:
            names[key] = _by_product(key, keys)
        elif key.endswith(("-Input", "-Output")):
            names[key] = key.replace("-", "")
    names = {key: name for key, name in names.items() if key in keys}
    taken = [names.get(key, key) for key in keys]
    doubled = sorted({name for name in taken if taken.count(name) > 1 and not name.startswith("Page")})
    if doubled:
        raise ValueError(f"several schemas would be named {', '.join(doubled)}; name them in SCHEMA_NAMES")
    return names


def _by_product(key: str, keys: list[str]) -> str:
    *modules, name = key.replace("-", "").split("__")
    short = _pascal(modules[1]) + name
    rivals = [other for other in keys if other.split("__")[1:2] == modules[1:2] and other.endswith("__" + name)]
    return short if len(rivals) == 1 else _pascal(modules[1]) + _pascal(modules[-1]) + name


def _pascal(snake: str) -> str:
    return "".join(word.capitalize() for word in snake.split("_"))


def fix_object_names(schema: dict[str, Any]) -> None:
    """Write `object`, whose default is the only value that a resource shows, as a constant: clients can decide on it."""
    name = schema.get("properties", {}).get("object", {})
    if name.get("type") == "string" and "default" in name:
        name["const"] = name.pop("default")


def renamed(document: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return the document with these schemas renamed, wherever they are referred to."""
    text = re.sub(f'"{REF}([^"]+)"', lambda found: f'"{REF}{names.get(found[1], found[1])}"', json.dumps(document))
    result: dict[str, Any] = json.loads(text)
    schemas = result["components"]["schemas"]
    result["components"]["schemas"] = {names.get(key, key): schema for key, schema in schemas.items()}
    return result


def page_names(schemas: Mapping[str, Any]) -> dict[str, str]:
    """Return the new names of page schemas: `Page` for that of anything, `PageOf…` for those of one model."""
    names = {}
    for key, schema in schemas.items():
        fields = schema.get("properties", {})
        if "Page_" in key and {"data", "has_more", "next_cursor"} == fields.keys():
            target: str = fields["data"]["items"].get("$ref", "").removeprefix(REF)
            names[key] = f"PageOf{target}" if target else "Page"
    return names


def share_page_envelope(schemas: dict[str, Any]) -> None:
    """Write each page as its rows and the common envelope. `Page` keeps what all have; its rows differ in kind."""
    for key, schema in schemas.items():
        if key.startswith("PageOf"):
            rows = {"type": "object", "properties": {"data": schema["properties"]["data"]}, "required": ["data"]}
            schemas[key] = {"type": "object", "allOf": [{"$ref": f"{REF}Page"}, rows]}
    page = schemas["Page"]
    page["properties"].pop("data")
    page["required"].remove("data")
    page["description"] = "What every page of a list has beside its rows, which are in `data`."


def used_components(document: Mapping[str, Any], components: Mapping[str, Any]) -> dict[str, Any]:
    """Return the components that the document refers to, also through other components, in alphabetical order."""
    used: dict[str, dict[str, Any]] = {"securitySchemes": components["securitySchemes"]}
    queue = [json.dumps(document)]
    while queue:
        for kind, name in re.findall(r'"#/components/(\w+)/([^"]+)"', queue.pop()):
            if name not in used.setdefault(kind, {}):
                used[kind][name] = components[kind][name]
                queue.append(json.dumps(components[kind][name]))
    return {kind: dict(sorted(found.items())) for kind, found in sorted(used.items())}
