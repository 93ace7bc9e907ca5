"""Checks against schemas: the same verdicts as the library's, in counted steps, with turns for others in between."""

import asyncio
import itertools
from collections.abc import Iterable
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spine.webhooks.schema_check import BUDGET, MAX_STEPS_AT_ONCE, STEPS_PER_TURN, Budget, BudgetExceeded
from spine.webhooks.schemas import CompiledSchema, validate_schema

NAMES = ("a", "b", "c")
LEAVES = st.sampled_from(
    [
        *({"type": kind} for kind in ("integer", "string", "array", "object", "null", "number", "boolean")),
        *({"minimum": 1}, {"multipleOf": 2}, {"minLength": 2}, {"maxItems": 1}, {"uniqueItems": True}),
        *({"required": ["a"]}, {"enum": [1, "a", [1], {"a": 1}, None]}, {"const": {"a": [1]}}, {"pattern": "^a"}),
        *({"dependentRequired": {"a": ["b"]}}, {"maxProperties": 1}, {"$ref": "#/$defs/x"}, {"$ref": "#here"}),
        *(True, False, {}),
    ]
)


def _combined(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    some = st.lists(inner, min_size=1, max_size=3)
    named = st.dictionaries(st.sampled_from(NAMES), inner, max_size=2)
    return st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(("items", "contains", "additionalProperties", "propertyNames", "not", "if", "then"), inner),
            **dict.fromkeys(("allOf", "anyOf", "oneOf", "prefixItems"), some),
            **dict.fromkeys(("properties", "dependentSchemas"), named),
        },
    )


SCHEMAS = st.recursive(LEAVES, _combined, max_leaves=6)
DATA = st.recursive(
    st.sampled_from([None, True, False, 0, 1, 1.0, 2.5, "", "a", "ab", "b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=8,
)


def located(errors: Iterable[jsonschema.ValidationError]) -> list[str]:
    """Where the violations are. The library leaves out the place of what the schema `false` refuses; ours has it."""
    return sorted(str(list(error.absolute_path)) for error in errors if error.validator not in (None, "false"))


@given(st.dictionaries(st.sampled_from(NAMES), SCHEMAS, max_size=3), st.dictionaries(st.sampled_from(NAMES), DATA))
def test_verdicts_are_those_of_the_standard(properties: dict[str, Any], data: dict[str, Any]) -> None:
    """What violates a schema, and where, is what the library's own validator finds; a part's `$schema` changes nothing."""
    schema = {
        "properties": properties,
        "$defs": {"x": {"type": "string"}, "y": {"$anchor": "here", "minProperties": 1}},
    }
    found = asyncio.run(CompiledSchema(schema).find_errors(data, Budget()))
    expected = list(jsonschema.Draft202012Validator(schema).iter_errors(data))
    if len(expected) < 20:
        assert len(found) == len(expected)
        assert located(found) == located(expected)
    else:
        assert len(found) == 20


def _times(schema: Any, count: int) -> dict[str, Any]:
    return {"properties": {"a": {"allOf": [schema] * count}}}


MANY = [0] * 20_000
LARGE = "x" * 200_000
NAMED = {f"k{n}": n for n in range(10_000)}
COSTLY: dict[str, tuple[dict[str, Any], Any]] = {
    "items": (_times({"items": {}}, 4_000), MANY),
    "contains": (_times({"contains": False}, 3_000), MANY),
    "names": (_times({"propertyNames": {}}, 2_500), NAMED),
    "additional": (_times({"additionalProperties": {}}, 2_000), NAMED),
    "unique": (_times({"uniqueItems": True}, 2_500), [LARGE]),
    "quoted": (_times({"anyOf": [*[{"type": "null"}] * 3_000, True]}, 1), LARGE),
    "equal": (_times({"$ref": "#/$defs/c"}, 2_000) | {"$defs": {"c": {"const": [[0]] * 200}}}, [[0]] * 200),
    "another dialect": (
        _times({"$schema": "http://json-schema.org/draft-07/schema#", "items": {}}, 700),
        MANY,
    ),
    "alternatives": (
        {
            "properties": {"a": {"$ref": "#/$defs/n"}},
            "$defs": {
                "n": {
                    "anyOf": [{"type": "null"}, {"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/n"}, False]}}]
                }
            },
        },
        [[0]] * 20_000,
    ),
}


@pytest.mark.parametrize("kind", COSTLY)
async def test_others_get_turns_in_between(kind: str) -> None:
    """A costly check ends at its budget, and between two turns of the others it takes a bounded number of steps."""
    schema, value = COSTLY[kind]
    validate_schema(schema)
    budget = Budget()
    at_turns = [budget.left]

    async def other() -> None:
        while True:
            at_turns.append(budget.left)
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    with pytest.raises(BudgetExceeded):
        await CompiledSchema(schema).find_errors({"a": value}, budget)
    task.cancel()
    steps = [before - after for before, after in itertools.pairwise(at_turns)]
    assert max(steps) <= STEPS_PER_TURN + MAX_STEPS_AT_ONCE
    assert len(at_turns) > (BUDGET - max(budget.left, 0)) / (STEPS_PER_TURN + MAX_STEPS_AT_ONCE)


@pytest.mark.parametrize(
    ("schema", "least"),
    [({"items": {}}, 1_000), ({"contains": False}, 1_000), ({"uniqueItems": True}, 1_000), ({"const": [0] * 900}, 900)],
    ids=str,
)
async def test_a_keyword_that_walks_the_data_pays_for_all_of_it(schema: dict[str, Any], least: int) -> None:
    """One keyword over a long list takes as many steps as it looks at values."""
    budget = Budget()
    await CompiledSchema(schema).find_errors([0] * 1_000, budget)
    assert BUDGET - budget.left >= least


async def test_a_message_that_quotes_large_data_is_paid_and_cut() -> None:
    """A violation keeps 500 characters of what it quotes, and pays for what was written before."""
    budget = Budget()
    (error,) = await CompiledSchema({"properties": {"a": {"type": "integer"}}}).find_errors({"a": LARGE}, budget)
    assert len(error.message) == 500
    assert BUDGET - budget.left >= len(LARGE) / 2_000


async def test_what_nothing_can_interrupt_is_short() -> None:
    """One match that may take longer than others should wait is refused, however much of the budget is left."""
    schema = CompiledSchema({"properties": {"a": {"pattern": "a[ab]{900}c"}}})
    with pytest.raises(BudgetExceeded):
        await schema.find_errors({"a": "ab" * 10_000}, Budget())
    assert await schema.find_errors({"a": "a" + "b" * 900 + "c"}, Budget()) == []
