"""Containment of JSON, and what an endpoint's filter makes of it."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.json_containment import Steps, TooManySteps, holds
from spine.webhooks.filters import (
    MAX_BYTES,
    MAX_DEPTH,
    STEPS_OF_AN_EVENT,
    Payload,
    read,
    usable,
    written,
)
from tests.json_pieces import JSON, NAMES, OBJECTS, value_and_piece


def held(value: Any, part: Any) -> bool:
    """Whether it is held, in however many steps."""
    return holds(value, part, Steps(10**9))


def _kind(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return repr(value)
    return "number" if isinstance(value, (int, float)) else type(value).__name__


def model(value: Any, part: Any) -> bool:
    """The rule, word by word, without a thought of its cost."""
    if _kind(value) != _kind(part):
        return False
    if isinstance(part, dict):
        return {name for name in part if name in value and model(value[name], part[name])} == set(part)
    if isinstance(part, list):
        return [wanted for wanted in part if not [item for item in value if model(item, wanted)]] == []
    return bool(value == part)


@pytest.mark.parametrize(
    ("value", "part", "expected"),
    [
        ({"pipeline": "sales", "customer": {"tier": "gold", "n": 1}}, {"customer": {"tier": "gold"}}, True),
        (
            {"pipeline": "sales", "customer": {"tier": "tin"}},
            {"pipeline": "sales", "customer": {"tier": "gold"}},
            False,
        ),
        ({"customer": "gold"}, {"customer": {}}, False),
        ({"customer": None}, {"customer": None}, True),
        ({}, {"customer": None}, False),
        ({"tags": ["b", "a", "c"]}, {"tags": ["a", "b", "a"]}, True),
        ({"tags": ["a"]}, {"tags": "a"}, False),
        ({"items": [{"sku": "x", "n": 1}, {"sku": "y"}]}, {"items": [{"sku": "y"}]}, True),
        ({"items": [{"sku": "x"}, {"n": 1}]}, {"items": [{"sku": "x", "n": 1}]}, False),
        ({"n": 1}, {"n": 1.0}, True),
        ({"n": 1}, {"n": True}, False),
        ({"n": [True, 1]}, {"n": [1]}, True),
        ({"n": [True, True]}, {"n": [1]}, False),
        ({"n": 9007199254740993}, {"n": 9007199254740992.0}, False),
        ({"n": 5}, {}, True),
    ],
)
def test_containment(value: Any, part: Any, expected: bool) -> None:
    """Objects field by field, arrays element by element in any order, scalars by their value; a truth is no number."""
    assert held(value, part) is expected
    assert model(value, part) is expected


@settings(max_examples=5 * settings().max_examples)
@given(value_and_piece())
def test_it_is_what_the_rule_says(pair: tuple[Any, Any]) -> None:
    """For any two pieces of JSON the answer is the plain rule's."""
    value, part = pair
    assert held(value, part) == model(value, part)


@given(value=JSON, more=JSON, names=st.sets(NAMES))
def test_a_piece_of_something_is_held_by_it(value: Any, more: Any, names: set[str]) -> None:
    """All JSON holds itself, and an object or array goes on holding what it held when more is put to it."""
    assert held(value, value)
    if isinstance(value, dict):
        assert held({**dict.fromkeys(names, more), **value}, value)
    if isinstance(value, list):
        assert held([more, *reversed(value), more], value)


@given(pair=value_and_piece(), given_steps=st.integers(0, 30))
def test_it_takes_no_more_steps_than_it_is_given(pair: tuple[Any, Any], given_steps: int) -> None:
    """With too few steps there is no answer, never a wrong one."""
    value, part = pair
    steps = Steps(given_steps)
    try:
        answer = holds(value, part, steps)
    except TooManySteps:
        assert steps.left < 0
    else:
        assert answer == model(value, part)
        assert steps.left >= 0


def test_a_product_of_arrays_is_given_up() -> None:
    """Arrays of objects within arrays of objects cost their product; that ends after the steps that were given."""
    steps = Steps(10_000)
    with pytest.raises(TooManySteps):
        holds([[{"a": n} for n in range(200)]] * 200, [[{"a": -n}] for n in range(1, 200)], steps)
    assert steps.left == -1


def body(data: Any) -> bytes:
    """An event's body, as far as filters look at it."""
    return orjson.dumps({"id": "evt_1", "type": "a.b", "data": data})


@given(value_and_piece(OBJECTS))
def test_a_payload_meets_what_its_data_holds(pair: tuple[Any, Any]) -> None:
    """Filters look at `data`, as the receiver would parse it, and one event is judged by any number of them."""
    data, filter = pair
    payload = Payload(body(data))
    expected = model(orjson.loads(orjson.dumps(data)), orjson.loads(orjson.dumps(filter)))
    assert payload.meets(filter) == expected
    assert payload.meets(filter) == expected
    assert payload.spent > 0
    assert payload.meets({"id": "evt_1"}) is False


@pytest.mark.parametrize("erased_or_odd", [None, b"", b"{", b"\xff", b"[]", b"7", b'{"id": "x"}', b"[" * 5000])
def test_what_cannot_be_judged_counts_as_meeting(erased_or_odd: bytes | None) -> None:
    """An erased or unreadable payload is never left out on a guess, and never stops a batch (ADR 11)."""
    assert Payload(erased_or_odd).meets({"a": 1}) is True


def test_too_costly_a_payload_counts_as_meeting() -> None:
    """Filters that would hold a worker up are given up for that event: it is delivered, and what it took is counted."""
    payload = Payload(body({"a": [{"b": n} for n in range(20_000)]}))
    assert payload.meets({"a": [{"b": -1}]}) is False  # one element is looked for to the end
    assert payload.meets({"a": [{"b": 19_999}, {"b": 19_998}, {"b": -1}]}) is True
    assert payload.spent == STEPS_OF_AN_EVENT
    assert payload.meets({"c": 1}) is True


def test_a_payload_that_nobody_filters_costs_nothing() -> None:
    """It is not parsed before a filter asks."""
    payload = Payload(b"no JSON at all")
    assert payload.spent == 0
    assert payload._data is None


@pytest.mark.parametrize("odd", ["a\x00b \ue000", "😀", "\u202e", "\\u0000"])
def test_odd_characters_are_characters(odd: str) -> None:
    """Payloads may hold what jsonb cannot; the other fields are judged all the same."""
    assert Payload(body({odd: odd, "tier": "gold", "n": 1.7e308})).meets({"tier": "gold", "n": 1.7e308}) is True
    assert Payload(body({odd: odd, "tier": "tin"})).meets({"tier": "gold"}) is False


def _nested(depth: int) -> Any:
    return {"a": _nested(depth - 1)} if depth else 1


@pytest.mark.parametrize(
    ("filter", "why"),
    [
        ({"a": "x" * MAX_BYTES}, "bytes of JSON"),
        ({"a": "é" * (MAX_BYTES // 2)}, "bytes of JSON"),
        (_nested(MAX_DEPTH + 1), "nested"),
        (_nested(500), "nested"),
        ({"a": [[[[[]]]]]}, "nested"),
        ({"a": ["b\x00"]}, r"U\+0000"),
        ({"a": {"\x00": 1}}, r"U\+0000"),
    ],
)
def test_filters_that_are_none(filter: Any, why: str) -> None:
    """Too large, too deep, or with a character that our columns cannot hold: told with what would mend it."""
    with pytest.raises(ValueError, match=why):
        usable(filter)


def test_filters_at_the_limits() -> None:
    """The largest and the deepest are taken."""
    for filter in ({}, {"a": "x" * (MAX_BYTES - 8)}, _nested(MAX_DEPTH), {"a": [[[[1]]]]}):
        assert usable(filter) == filter


@given(filter=OBJECTS)
def test_a_filter_is_read_as_it_was_written(filter: Any) -> None:
    """What a column has of a filter is that filter; the order of its fields makes no other one of it."""
    assert read(written(filter)) == filter
    assert written(dict(reversed(filter.items()))) == written(filter)
    assert read(written(None)) is None
