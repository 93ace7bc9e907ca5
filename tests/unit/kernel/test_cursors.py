"""Cursors as text: bound, signed, versioned."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spine.kernel.cursors import MAX_LENGTH, Cursors, Position
from spine.kernel.errors import BadRequest

CURSORS = Cursors(b"k" * 32, "one")
snapshots = st.builds(
    lambda xmin, steps: f"{xmin}:{xmin + sum(steps)}:{','.join(str(xmin + n) for n in range(len(steps)))}",
    st.integers(3, 2**63),
    st.lists(st.integers(1, 10**6), max_size=20),
)


def assert_invalid(text: str, binding: str = "b", cursors: Cursors = CURSORS) -> None:
    """The cursor is refused as `invalid_cursor`."""
    with pytest.raises(BadRequest, match="start again") as raised:
        cursors.decode(binding, text)
    assert raised.value.code == "invalid_cursor"


@given(snapshots, st.lists(st.text(max_size=40), max_size=3), st.none() | snapshots, st.text(max_size=60))
def test_decode_inverts_encode(snapshot: str, after: list[str], read_snapshot: str | None, binding: str) -> None:
    """A cursor decodes to the position that was encoded, under the same binding."""
    position = Position(snapshot, tuple(after), read_snapshot)
    assert CURSORS.decode(binding, CURSORS.encode(binding, position)) == position


@given(st.text(max_size=60), st.text(max_size=60))
def test_a_cursor_is_bound(one: str, other: str) -> None:
    """Under any other binding, key or epoch a cursor is invalid."""
    text = CURSORS.encode(one, Position("5:5:", ("usr_x",)))
    for cursors in (Cursors(b"l" * 32, "one"), Cursors(b"k" * 32, "two")):
        assert_invalid(text, one, cursors)
    if one != other:
        assert_invalid(text, other)


@given(st.text(max_size=200))
@example("é")
@example("bm9uc2Vuc2U")
def test_any_other_text_is_invalid(text: str) -> None:
    """A text that we did not encode is invalid, and raises no other error."""
    assert_invalid(text)


@given(st.integers(0, 100), st.sampled_from("ABCxyz-_="))
def test_a_changed_or_cut_cursor_is_invalid(position: int, letter: str) -> None:
    """The signature covers every character."""
    text = CURSORS.encode("b", Position("5:5:", ("usr_x",)))
    assert_invalid(text[: min(position, len(text) - 1)])
    changed = text[:position] + letter + text[position + 1 :]
    if changed != text and position < len(text) - 1:  # the last character holds unused bits
        assert_invalid(changed)


def test_a_cursor_holds_500_transactions() -> None:
    """With 500 transactions in flight, a cursor with two snapshots still fits the parameter."""
    xmin = 2**40
    snapshot = f"{xmin}:{xmin + 5000}:{','.join(str(xmin + 7 * n) for n in range(500))}"
    position = Position(snapshot, (str(xmin), "evt_01M7XZQ13PQ2QS290DBGHN958X"), snapshot)
    text = CURSORS.encode("binding", position)
    assert len(text) <= MAX_LENGTH
    assert CURSORS.decode("binding", text) == position
