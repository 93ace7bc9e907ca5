"""JSON Schemas of callers: what can be registered, and what is kept of it for checks.

References may only point inside the schema, and patterns have a limited size and number, so that no check has to be refused for
them later (`schema_check.py`).
"""

import re
from collections.abc import Iterator, Set
from typing import Any, Final

import jsonschema_rs
import orjson
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from spine.webhooks.schema_check import Budget, find_errors
from spine.webhooks.schema_patterns import matcher
from spine.webhooks.schema_references import References

MAX_BYTES: Final = 64 * 1024
_REFUSED: Final = re.compile(
    r'"(\$id|\$dynamicRef|\$recursiveRef|patternProperties|unevaluatedItems|unevaluatedProperties)":'
)
_REMOTE: Final = re.compile(r'"\$ref":"(?!#)')
_MAX_PATTERNS: Final = 20
_MAX_PATTERN_CHARS: Final = 250
_MAX_DEPTH: Final = 100
_META: Final = jsonschema_rs.Draft202012Validator(Draft202012Validator.META_SCHEMA)


class CompiledSchema:
    """A registered schema with its references."""

    __slots__ = ("_references", "_schema")

    def __init__(self, schema: Any) -> None:
        self._schema = schema
        self._references = References(schema)

    async def find_errors(self, data: Any, budget: Budget) -> list[ValidationError]:
        """Return 20 violations, ordered by their path in the data. Raises BudgetExceeded."""
        return await find_errors(self._schema, self._references, data, budget)


def validate_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema unchanged. Raises ValueError with the reason if it cannot be registered."""
    try:
        text = orjson.dumps(schema).decode()
    except orjson.JSONEncodeError as error:
        raise ValueError("it is nested too deeply") from error
    if len(text) > MAX_BYTES:
        raise ValueError(f"a schema may have {MAX_BYTES} bytes")
    refused = _REFUSED.search(text)
    if refused:
        raise ValueError(f"{refused[1]} is not supported")
    if _REMOTE.search(text):
        raise ValueError("$ref may only point inside the schema itself (#/…)")
    parts = list(_objects(schema))
    patterns = {part["pattern"] for part in parts if isinstance(part.get("pattern"), str)}
    _check_number(patterns)
    try:
        _META.validate(schema)
    except jsonschema_rs.ValidationError as error:
        raise ValueError(f"no valid JSON Schema: {error.message[:300]}") from error
    references = References(schema)
    for part in parts:
        _check_reference(part.get("$ref"), references)
    for pattern in sorted(patterns):
        matcher(pattern)
    return schema


def _objects(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the objects in a schema, at any depth. Raises ValueError if it is nested too deeply."""
    todo: list[tuple[Any, int]] = [(schema, 1)]
    while todo:
        part, depth = todo.pop()
        if depth > _MAX_DEPTH:
            raise ValueError(f"it is nested too deeply; {_MAX_DEPTH} levels are possible")
        if isinstance(part, dict):
            yield part
        inner = part.values() if isinstance(part, dict) else part
        todo.extend((one, depth + 1) for one in inner if isinstance(one, (dict, list)))


def _check_number(patterns: Set[str]) -> None:
    """Raise ValueError for more or longer patterns than a schema may have. Compiling one takes up to 5 ms."""
    if len(patterns) > _MAX_PATTERNS:
        raise ValueError(f"it has {len(patterns)} different patterns; {_MAX_PATTERNS} are possible")
    for pattern in patterns:
        if len(pattern) > _MAX_PATTERN_CHARS:
            raise ValueError(f"the pattern {pattern[:100]!r}… is longer than {_MAX_PATTERN_CHARS} characters")


def _check_reference(reference: Any, references: References) -> None:
    if isinstance(reference, str):
        try:
            references.find(reference)
        except LookupError as error:
            raise ValueError(f"$ref {reference[:100]!r} leads nowhere") from error
