"""Examples for JSON Schemas: small, valid for the common keywords, and always the same.

A schema of less than 1 KB may describe values of any size. Therefore an example has a budget of values and bytes. If the
whole one exceeds it, an example with the required properties alone is tried.
"""

from typing import Any, Final

import orjson

_TEXTS: Final = {
    "date-time": "2026-01-02T03:04:05Z",
    "date": "2026-01-02",
    "time": "03:04:05Z",
    "email": "person@example.com",
    "uri": "https://example.com/",
    "uuid": "123e4567-e89b-42d3-a456-426614174000",
}
MAX_VALUES: Final = 2_000
MAX_BYTES: Final = 64 * 1024
_MAX_DEPTH: Final = 32


class ExampleTooLarge(Exception):
    """The smallest example that we can make of a schema exceeds its budget."""


def example(schema: dict[str, Any]) -> Any:
    """Return a value that matches the schema. `$ref` may point inside the schema. Raises ExampleTooLarge."""
    try:
        return _Example(schema, required_only=False).make()
    except ExampleTooLarge:
        return _Example(schema, required_only=True).make()


class _Example:
    """One example in the making: its root schema, what is left of its budget, and the references that lead to this place."""

    def __init__(self, root: dict[str, Any], *, required_only: bool) -> None:
        self._root = root
        self._required_only = required_only
        self._values_left = MAX_VALUES
        self._bytes_left = MAX_BYTES
        self._references: list[str] = ["#"]

    def make(self) -> Any:
        return self._of(self._root, 0)

    def _spend(self, bytes: int) -> None:
        """Pay for one value and its bytes of JSON, before it is made."""
        self._values_left -= 1
        self._bytes_left -= bytes
        if self._values_left < 0 or self._bytes_left < 0:
            raise ExampleTooLarge

    def _of(self, schema: Any, depth: int) -> Any:
        self._spend(1)
        if depth > _MAX_DEPTH:
            raise ExampleTooLarge
        if not isinstance(schema, dict):
            return None
        if "$ref" in schema:
            return self._of_reference(schema["$ref"], depth)
        for keyword in ("const", "default"):
            if keyword in schema:
                return self._given(schema[keyword])
        for keyword in ("examples", "enum"):
            if schema.get(keyword):
                return self._given(schema[keyword][0])
        choices = schema.get("anyOf") or schema.get("oneOf")
        if choices:
            return self._of(next((one for one in choices if not self._leads_back(one)), choices[0]), depth + 1)
        if schema.get("allOf"):
            parts = [self._of(part, depth + 1) for part in schema["allOf"]]
            return {name: value for part in parts if isinstance(part, dict) for name, value in part.items()}
        kind = schema.get("type", "object" if "properties" in schema else None)
        return self._of_kind(kind[0] if isinstance(kind, list) else kind, schema, depth)

    def _of_reference(self, reference: str, depth: int) -> Any:
        self._references.append(reference)
        try:
            return self._of(_resolve(reference, self._root), depth + 1)
        finally:
            self._references.pop()

    def _given(self, value: Any) -> Any:
        """Return a value that the schema itself gives."""
        self._spend(len(orjson.dumps(value)))
        return value

    def _of_kind(self, kind: str | None, schema: dict[str, Any], depth: int) -> Any:
        match kind:
            case "object":
                return self._of_object(schema, depth)
            case "array":
                return self._of_array(schema, depth)
            case "string":
                text, fewest = _TEXTS.get(schema.get("format", ""), "text"), int(schema.get("minLength", 0))
                self._spend(max(len(text), fewest))
                return text.ljust(fewest, "x")[: int(schema.get("maxLength", MAX_VALUES + fewest))]
            case "integer" | "number":
                number = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
                return int(number) if kind == "integer" else number
            case "boolean":
                return True
            case _:
                return None

    def _of_object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        required = schema.get("required", ())
        made: dict[str, Any] = {}
        for name, part in schema.get("properties", {}).items():
            if name in required or not (self._required_only or self._leads_back(part)):
                self._spend(len(name.encode()) + 3)
                made[name] = self._of(part, depth + 1)
        return made

    def _of_array(self, schema: dict[str, Any], depth: int) -> list[Any]:
        items, fewest = schema.get("items"), int(schema.get("minItems", 0))
        if not isinstance(items, dict) or (not fewest and (self._required_only or self._leads_back(items))):
            return []
        return [self._of(items, depth + 1) for _ in range(max(1, fewest))]

    def _leads_back(self, schema: Any) -> bool:
        """True if a schema is a reference to one that this place is inside of: it would never end."""
        return isinstance(schema, dict) and schema.get("$ref") in self._references


def _resolve(reference: str, root: dict[str, Any]) -> Any:
    found: Any = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        if not part:
            continue
        found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    return found
