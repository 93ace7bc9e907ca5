"""Examples for JSON Schemas: small, valid for the common keywords, and always the same."""

from typing import Any, Final

_TEXTS: Final = {
    "date-time": "2026-01-02T03:04:05Z",
    "date": "2026-01-02",
    "time": "03:04:05Z",
    "email": "person@example.com",
    "uri": "https://example.com/",
    "uuid": "123e4567-e89b-42d3-a456-426614174000",
}
_MAX_DEPTH: Final = 8


def example(schema: dict[str, Any]) -> Any:
    """Return a value that matches the schema. `$ref` may point inside the schema."""
    return _example(schema, schema, 0)


def _example(schema: Any, root: dict[str, Any], depth: int) -> Any:
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return None
    if "$ref" in schema:
        return _example(_resolve(schema["$ref"], root), root, depth + 1)
    for keyword in ("const", "default"):
        if keyword in schema:
            return schema[keyword]
    for keyword in ("examples", "enum"):
        if schema.get(keyword):
            return schema[keyword][0]
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices:
        return _example(choices[0], root, depth + 1)
    if schema.get("allOf"):
        parts = [_example(part, root, depth + 1) for part in schema["allOf"]]
        return {name: value for part in parts if isinstance(part, dict) for name, value in part.items()}
    kind = schema.get("type", "object" if "properties" in schema else None)
    return _of_kind(kind[0] if isinstance(kind, list) else kind, schema, root, depth)


def _of_kind(kind: str | None, schema: dict[str, Any], root: dict[str, Any], depth: int) -> Any:
    match kind:
        case "object":
            return {name: _example(part, root, depth + 1) for name, part in schema.get("properties", {}).items()}
        case "array":
            item = _example(schema["items"], root, depth + 1) if isinstance(schema.get("items"), dict) else None
            return [] if item is None else [item] * max(1, schema.get("minItems", 1))
        case "string":
            text = _TEXTS.get(schema.get("format", ""), "text")
            return text.ljust(schema.get("minLength", 0), "x")[: schema.get("maxLength", len(text) + 64)]
        case "integer" | "number":
            number = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
            return int(number) if kind == "integer" else number
        case "boolean":
            return True
        case _:
            return None


def _resolve(reference: str, root: dict[str, Any]) -> Any:
    found: Any = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        if not part:
            continue
        found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    return found
