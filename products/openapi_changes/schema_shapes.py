"""The shape of a schema: references resolved, `allOf` merged, nullability and alternatives told apart."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Schema = Mapping[str, Any]
_NOTES: Final = frozenset({
    "$comment", "$defs", "deprecated", "description", "discriminator", "example", "examples", "externalDocs",
    "readOnly", "title", "writeOnly",
})  # fmt: skip
"""Keywords that allow and forbid nothing."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What one schema allows. `types` is None where any type is allowed; `values` where any value is."""

    types: frozenset[str] | None = None
    values: frozenset[Any] | None = None
    keywords: Mapping[str, Any] = field(default_factory=dict)
    properties: Mapping[str, Schema] = field(default_factory=dict)
    required: frozenset[str] = frozenset()
    parts: Mapping[str, Any] = field(default_factory=dict)
    """`items`, `additionalProperties` and `propertyNames`."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The alternatives of a schema, and whether null is one of them."""

    nullable: bool
    shapes: tuple[Shape, ...]


def choice_of(schema: Schema | bool, components: Schema) -> Choice:
    """Return the alternatives of a schema. `components` holds what references point to."""
    if isinstance(schema, bool):
        return Choice(schema, (Shape(),) if schema else ())
    flat = _flat(schema, components)
    alternatives = flat.pop("anyOf", None) or flat.pop("oneOf", None)
    if alternatives is None:
        return _single(flat)
    choices = [choice_of(_merged(flat, _flat(one, components)), components) for one in alternatives]
    shapes = tuple(shape for choice in choices for shape in choice.shapes)
    return Choice(any(choice.nullable for choice in choices), shapes)


def _single(flat: dict[str, Any]) -> Choice:
    kind = flat.get("type")
    types = None if kind is None else frozenset([kind] if isinstance(kind, str) else kind)
    values = frozenset(map(_frozen, flat["enum"])) if "enum" in flat else None
    if "const" in flat:
        values = frozenset([_frozen(flat["const"])])
    nullable = (types is None or "null" in types) and (values is None or None in values)
    if types is not None and types == frozenset({"null"}):
        return Choice(True, ())
    parts = ("items", "additionalProperties", "propertyNames")
    taken = {"type", "enum", "const", "properties", "required", *parts}
    return Choice(
        nullable,
        (
            Shape(
                types=None if types is None else types - {"null"},
                values=None if values is None else values - {None},
                keywords={
                    key: value
                    for key, value in flat.items()
                    if key not in taken and key not in _NOTES and not key.startswith("x-")
                },
                properties=flat.get("properties", {}),
                required=frozenset(flat.get("required", ())),
                parts={key: flat[key] for key in parts if key in flat},
            ),
        ),
    )


def _frozen(value: Any) -> Any:
    return value if not isinstance(value, dict | list) else repr(value)


def _flat(schema: Schema, components: Schema) -> dict[str, Any]:
    """Return the schema without `$ref` and `allOf` at its top."""
    flat = dict(schema)
    if "$ref" in flat:
        kind, name = flat.pop("$ref").removeprefix("#/components/").split("/")
        flat = _merged(_flat(components[kind][name], components), flat)
    for part in flat.pop("allOf", ()):
        flat = _merged(flat, _flat(part, components))
    return flat


def _merged(one: Schema, other: Schema) -> dict[str, Any]:
    """Return a schema that demands what both demand. Of a keyword that both have, the second one's value counts."""
    merged = {**one, **other}
    properties = {**one.get("properties", {})}
    for name, schema in other.get("properties", {}).items():
        properties[name] = {"allOf": [properties[name], schema]} if name in properties else schema
    if properties:
        merged["properties"] = properties
    required = {*one.get("required", ()), *other.get("required", ())}
    if required:
        merged["required"] = sorted(required)
    return merged
