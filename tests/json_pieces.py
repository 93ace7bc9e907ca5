"""JSON to be generated: values, and pieces that are taken out of them or nearly are."""

from typing import Any

from hypothesis import strategies as st

NAMES = st.sampled_from(["a", "b", "c"])
# Few, so that two often meet; among them those that a language or a database may take for one another.
SCALARS = st.sampled_from([None, True, False, 0, 1, 1.0, 1.5, "", "a", "1", "true"]) | st.sampled_from(
    [-0.0, 1e22, 1.7e308, 5e-324, 2**53 + 1, 2.0**53, "é"]
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=10
)
OBJECTS = st.dictionaries(NAMES, JSON, max_size=3)


@st.composite
def value_and_piece(draw: st.DrawFn, values: st.SearchStrategy[Any] = JSON) -> tuple[Any, Any]:
    """A value, and a piece of it in which now and then something else stands."""
    value = draw(values)
    return value, _piece(draw, value, whole=isinstance(value, dict))


def _piece(draw: st.DrawFn, value: Any, *, whole: bool = False) -> Any:
    if not whole and draw(st.integers(0, 5)) == 0:
        return draw(JSON)
    if isinstance(value, dict):
        return {name: _piece(draw, item) for name, item in value.items() if draw(st.booleans())}
    if isinstance(value, list):
        return [_piece(draw, item) for item in draw(st.permutations(value)) if draw(st.booleans())]
    return draw(st.sampled_from([value, *_TWINS.get(repr(value), ())]))


_TWINS = {
    "1": (True, 1.0, "1"),
    "True": (1, "true"),
    "0": (False, -0.0),
    "False": (0,),
    "None": (False, ""),
    "1.0": (1, True),
}
