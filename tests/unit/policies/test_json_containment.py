"""Laws of JSON containment, and of endpoint filters, which use it."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.json_containment import Steps, TooManySteps, contains
from spine.webhooks.filters import (
    MAX_BYTES,
    MAX_DEPTH,
    STEPS_OF_AN_EVENT,
    Payload,
    read,
    usable,
    written,
)
from tests.json_pieces import JSON, NAMES, OBJECTS, value_and_part


def held(value: Any, part: Any) -> bool:
    """`contains` with enough steps."""
    return contains(value, part, Steps(10**9))


def _kind(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return repr(value)
    return "number" if isinstance(value, (int, float)) else type(value).__name__


def model(value: Any, part: Any) -> bool:
    """The rule, implemented without regard to cost."""
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
    """Objects compare by field, arrays by element in any order, scalars by value; a boolean is no number."""
    assert held(value, part) is expected
    assert model(value, part) is expected


@settings(max_examples=5 * settings().max_examples)
@given(value_and_part())
def test_containment_follows_the_rule(pair: tuple[Any, Any]) -> None:
    """For any two JSON values the result equals the plain implementation of the rule."""
    value, part = pair
    assert held(value, part) == model(value, part)


@given(value=JSON, more=JSON, names=st.sets(NAMES))
def test_a_value_contains_itself_and_its_parts(value: Any, more: Any, names: set[str]) -> None:
    """Every JSON value contains itself; an object or array with additions contains the original."""
    assert held(value, value)
    if isinstance(value, dict):
        assert held({**dict.fromkeys(names, more), **value}, value)
    if isinstance(value, list):
        assert held([more, *reversed(value), more], value)


@given(pair=value_and_part(), given_steps=st.integers(0, 30))
def test_the_steps_are_not_exceeded(pair: tuple[Any, Any], given_steps: int) -> None:
    """With too few steps it raises TooManySteps; it never returns a wrong result."""
    value, part = pair
    steps = Steps(given_steps)
    try:
        answer = contains(value, part, steps)
    except TooManySteps:
        assert steps.left < 0
    else:
        assert answer == model(value, part)
        assert steps.left >= 0


def test_a_product_of_arrays_is_aborted() -> None:
    """Comparing nested arrays of objects, which costs the product of their lengths, ends when the steps are used up."""
    steps = Steps(10_000)
    with pytest.raises(TooManySteps):
        contains([[{"a": n} for n in range(200)]] * 200, [[{"a": -n}] for n in range(1, 200)], steps)
    assert steps.left == -1


def body(data: Any) -> bytes:
    """An event's body with the fields that filters read."""
    return orjson.dumps({"id": "evt_1", "type": "a.b", "data": data})


@given(value_and_part(OBJECTS))
def test_a_payload_meets_the_filters_that_its_data_contains(pair: tuple[Any, Any]) -> None:
    """Filters apply to `data` as the receiver parses it; a payload can be tested against many filters."""
    data, filter = pair
    payload = Payload(body(data))
    expected = model(orjson.loads(orjson.dumps(data)), orjson.loads(orjson.dumps(filter)))
    assert payload.meets(filter) == expected
    assert payload.meets(filter) == expected
    assert payload.spent > 0
    assert payload.meets({"id": "evt_1"}) is False


@pytest.mark.parametrize("erased_or_odd", [None, b"", b"{", b"\xff", b"[]", b"7", b'{"id": "x"}', b"[" * 5000])
def test_an_unreadable_payload_meets_every_filter(erased_or_odd: bytes | None) -> None:
    """An erased or unreadable payload is delivered, and never stops a batch (ADR 11)."""
    assert Payload(erased_or_odd).meets({"a": 1}) is True


def test_a_payload_that_is_too_costly_meets_the_filter() -> None:
    """If filters use up an event's steps, the event is delivered, and the spent steps are counted."""
    payload = Payload(body({"a": [{"b": n} for n in range(20_000)]}))
    assert payload.meets({"a": [{"b": -1}]}) is False  # one element is compared with all others
    assert payload.meets({"a": [{"b": 19_999}, {"b": 19_998}, {"b": -1}]}) is True
    assert payload.spent == STEPS_OF_AN_EVENT
    assert payload.meets({"c": 1}) is True


def test_a_payload_without_filters_is_not_parsed() -> None:
    """A payload is parsed only when a filter is tested."""
    payload = Payload(b"no JSON at all")
    assert payload.spent == 0
    assert payload._data is None


@pytest.mark.parametrize("odd", ["a\x00b \ue000", "😀", "\u202e", "\\u0000"])
def test_odd_characters_are_ordinary_characters(odd: str) -> None:
    """A payload may contain characters that jsonb cannot; filters still test its other fields."""
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
def test_invalid_filters_are_refused(filter: Any, why: str) -> None:
    """A filter that is too large, too deep, or contains U+0000 is refused with the reason."""
    with pytest.raises(ValueError, match=why):
        usable(filter)


def test_filters_at_the_limits_are_accepted() -> None:
    """The largest and the deepest filters are accepted."""
    for filter in ({}, {"a": "x" * (MAX_BYTES - 8)}, _nested(MAX_DEPTH), {"a": [[[[1]]]]}):
        assert usable(filter) == filter


@given(filter=OBJECTS)
def test_a_stored_filter_is_read_unchanged(filter: Any) -> None:
    """A filter read from its column equals the written one; the order of its fields does not change the text."""
    assert read(written(filter)) == filter
    assert written(dict(reversed(filter.items()))) == written(filter)
    assert read(written(None)) is None
