"""Cursors as text: bound, signed, versioned."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spine.kernel.cursors import Cursors, Position
from spine.kernel.errors import BadRequest

CURSORS = Cursors(b"k" * 32, "one")
snapshots = st.builds(
    lambda xmin, steps: f"{xmin}:{xmin + sum(steps)}:{','.join(str(xmin + n) for n in range(len(steps)))}",
    st.integers(3, 2**63),
    st.lists(st.integers(1, 10**6), max_size=20),
)


@given(snapshots, st.lists(st.text(max_size=40), max_size=3), st.none() | snapshots, st.text(max_size=60))
def test_a_cursor_reads_as_it_was_written(snapshot: str, after: list[str], read: str | None, binding: str) -> None:
    """What goes in comes out, under the same binding."""
    position = Position(snapshot, tuple(after), read)
    assert CURSORS.read(binding, CURSORS.write(binding, position)) == position


@given(st.text(max_size=60), st.text(max_size=60))
def test_a_cursor_is_bound(one: str, other: str) -> None:
    """Under any other binding, key or epoch it is invalid."""
    text = CURSORS.write(one, Position("5:5:", ("usr_x",)))
    strangers = [Cursors(b"l" * 32, "one"), Cursors(b"k" * 32, "two")] + ([CURSORS] if one != other else [])
    for cursors in strangers:
        with pytest.raises(BadRequest, match="start again"):
            cursors.read(other if cursors is CURSORS else one, text)


@given(st.text(max_size=200))
def test_nonsense_is_invalid(text: str) -> None:
    """No text but ours passes, and none breaks anything."""
    with pytest.raises(BadRequest):
        CURSORS.read("", text)


@given(st.integers(0, 100), st.sampled_from("ABCxyz-_="))
def test_a_changed_cursor_is_invalid(position: int, letter: str) -> None:
    """The signature covers every character."""
    text = CURSORS.write("b", Position("5:5:", ("usr_x",)))
    changed = text[:position] + letter + text[position + 1 :]
    if changed != text and position < len(text) - 1:  # the last character holds spare bits
        with pytest.raises(BadRequest):
            CURSORS.read("b", changed)
