"""Weights of accounts."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from policies.weights import in_turn

WEIGHTS = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 1000), min_size=1)


@given(st.text(), WEIGHTS)
def test_an_order_is_of_all_names_and_always_the_same(key: str, weights: dict[str, int]) -> None:
    """Each name stands in it once, whatever order the weights came in."""
    order = in_turn(key, weights)
    assert sorted(order) == sorted(weights)
    assert in_turn(key, dict(reversed(weights.items()))) == order


@given(st.text(), WEIGHTS, st.data())
def test_who_leaves_moves_nobody_else(key: str, weights: dict[str, int], data: st.DataObject) -> None:
    """Without one name the others keep their order."""
    gone = data.draw(st.sampled_from(sorted(weights)))
    left = {name: weight for name, weight in weights.items() if name != gone}
    assert in_turn(key, left) == [name for name in in_turn(key, weights) if name != gone]


def test_shares_are_those_of_the_weights() -> None:
    """Of 20,000 messages an account gets its share first, within a hundredth of all."""
    weights = {"a": 70, "b": 20, "c": 10}
    first = Counter(in_turn(f"msg_{n}", weights)[0] for n in range(20_000))
    for name, weight in weights.items():
        assert abs(first[name] / 20_000 - weight / 100) < 0.01
