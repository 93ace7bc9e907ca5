"""Examples made of schemas."""

from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spine.webhooks.schema_examples import example

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
    {},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
def test_an_example_fits_its_schema(schema: dict[str, Any]) -> None:
    """For the common keywords the example is valid."""
    found = example(schema)
    if "again" not in str(schema):  # a schema without an end is cut off at a depth
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
    """A registered schema that is valid may still be odd: there is an example, or none."""
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError:
        return
    example(schema)
