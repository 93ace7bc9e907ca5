"""Hypothesis strategies for JSON values, and for parts of them that are exact or slightly changed."""

from typing import Any

from hypothesis import strategies as st

NAMES = st.sampled_from(["a", "b", "c"])
# Few values, so that equal ones are frequent. Some are equal in a language or a database, but different in JSON.
SCALARS = st.sampled_from([None, True, False, 0, 1, 1.0, 1.5, "", "a", "1", "true"]) | st.sampled_from(
    [-0.0, 1e22, 1.7e308, 5e-324, 2**53 + 1, 2.0**53, "é"]
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=10
)
OBJECTS = st.dictionaries(NAMES, JSON, max_size=3)


@st.composite
def value_and_part(draw: st.DrawFn, values: st.SearchStrategy[Any] = JSON) -> tuple[Any, Any]:
    """Draw a value and a part of it, in which some values are replaced."""
    value = draw(values)
    return value, _part(draw, value, whole=isinstance(value, dict))


def _part(draw: st.DrawFn, value: Any, *, whole: bool = False) -> Any:
    if not whole and draw(st.integers(0, 5)) == 0:
        return draw(JSON)
    if isinstance(value, dict):
        return {name: _part(draw, item) for name, item in value.items() if draw(st.booleans())}
    if isinstance(value, list):
        return [_part(draw, item) for item in draw(st.permutations(value)) if draw(st.booleans())]
    return draw(st.sampled_from([value, *_SIMILAR.get(repr(value), ())]))


_SIMILAR = {
    "1": (True, 1.0, "1"),
    "True": (1, "true"),
    "0": (False, -0.0),
    "False": (0,),
    "None": (False, ""),
    "1.0": (1, True),
}
