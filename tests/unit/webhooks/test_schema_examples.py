"""Examples made of schemas."""

import contextlib
import tracemalloc
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spine.webhooks.schema_examples import MAX_VALUES, ExampleTooLarge, example

SCHEMAS: list[dict[str, Any]] = [
    {"type": "string", "minLength": 30},
    {"type": "string", "maxLength": 2},
    {"type": "integer", "minimum": 7},
    {"type": "integer", "exclusiveMinimum": 7},
    {"type": "number"},
    {"type": "boolean"},
    {"type": ["null", "string"]},
    {"const": {"a": 1}},
    {"enum": ["x", "y"]},
    {"type": "array", "minItems": 3, "items": {"type": "integer"}},
    {"anyOf": [{"type": "null"}, {"type": "string"}]},
    {"allOf": [{"properties": {"a": {"type": "integer"}}}, {"properties": {"b": {"type": "string"}}}]},
    {"$ref": "#/$defs/x", "$defs": {"x": {"type": "string", "format": "date-time"}}},
    {"type": "object", "properties": {"again": {"$ref": "#"}}},
    {"type": "object", "properties": {"many": {"type": "array", "items": {"$ref": "#"}}}},
    {"properties": {"a": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["a"]},
    {"type": "string", "minLength": 3.0, "maxLength": 5.0},
    {"type": "array", "minItems": 2.0, "items": {"type": "string"}},
    {"properties": {f"p{n}": {"$ref": "#"} for n in range(25)}},
    {},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
def test_an_example_fits_its_schema(schema: dict[str, Any]) -> None:
    """For the common keywords the example is valid."""
    found = example(schema)
    jsonschema.Draft202012Validator(schema).validate(found)
    assert example(schema) == found


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "$ref", "items", "properties", "enum", "anyOf", "allOf", "minimum", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@settings(suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from(["type", "items", "properties", "$defs", "x"]), json_values, max_size=4))
def test_a_strange_schema_breaks_nothing(schema: dict[str, Any]) -> None:
    """A registered schema that is valid may still be odd: there is an example, none, or one that is too large."""
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError:
        return
    with contextlib.suppress(ExampleTooLarge):
        example(schema)


def nested(width: int, depth: int, **more: Any) -> dict[str, Any]:
    """A schema of `depth` definitions, each with `width` properties of the next: width ** depth values."""
    definitions = {
        f"d{level}": {
            "type": "object",
            "properties": {f"p{n}": {"$ref": f"#/$defs/d{level + 1}"} for n in range(width)},
        }
        | more
        for level in range(depth)
    }
    return {"$ref": "#/$defs/d0", "$defs": definitions | {f"d{depth}": {"type": "string"}}}


def count_values(value: Any) -> int:
    """The values of a JSON document."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(count_values(one) for one in inner)


def test_what_is_optional_is_left_out_where_the_whole_is_too_large() -> None:
    """The example is valid and small: with a width of 25 and a depth of 8 the whole one had 106 MB."""
    schema = nested(25, 8)
    found = example(schema)
    jsonschema.Draft202012Validator(schema).validate(found)
    assert count_values(found) <= MAX_VALUES


@pytest.mark.parametrize(
    "schema",
    [
        nested(25, 8, required=[f"p{n}" for n in range(25)]),
        {"properties": {"again": {"$ref": "#"}}, "required": ["again"]},
        {"$ref": "#"},
        {"type": "string", "minLength": 10**12},
        {"type": "array", "minItems": 10**12, "items": {"type": "integer"}},
        {"type": "array", "minItems": 10**12, "items": {"type": "array", "items": {}, "minItems": 10**12}},
        {"type": "array", "minItems": 1_000, "items": {"$ref": "#/$defs/x"}, "$defs": {"x": {"const": "x" * 10_000}}},
        {"allOf": [{"$ref": "#"}] * 25},
    ],
    ids=["wide", "endless", "itself", "text", "array", "arrays", "constants", "allOf"],
)
def test_an_example_has_a_budget(schema: dict[str, Any]) -> None:
    """What must have more than 2,000 values, or more than 64 KiB, is not made, however small its schema is."""
    tracemalloc.start()
    try:
        with pytest.raises(ExampleTooLarge):
            example(schema)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()
