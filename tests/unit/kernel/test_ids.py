"""Ids: prefixes, times, order."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ulid import ULID

from spine.kernel import ids


def test_prefixes_are_never_shared() -> None:
    """Each prefix belongs to one kind (P-11)."""
    assert len(set(ids.PREFIXES.values())) == len(ids.PREFIXES)


def test_an_id_holds_its_kind_and_its_time() -> None:
    """An id is `<prefix>_<26 Crockford characters>`; the first ten hold the creation time in milliseconds, in UTC (P-09)."""
    made = ids.mint("evt")
    assert ids.is_id(made, "evt")
    assert not ids.is_id(made, "usr")
    assert ids.created_at(made).tzinfo == UTC
    assert abs(ids.created_at(made) - datetime.now(UTC)) < timedelta(seconds=2)
    assert ids.created_at(made) == ULID.from_str(made[4:]).datetime


def test_ids_of_a_process_sort_in_creation_order() -> None:
    """Ids sort in creation order, also within one millisecond (P-10)."""
    made = [ids.mint("evt") for _ in range(2000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    times = [ids.created_at(id) for id in made]
    assert times == sorted(times)


@pytest.mark.parametrize("letter", "ILOUilou8é _")
def test_letters_outside_the_alphabet_are_refused(letter: str) -> None:
    """I, L, O, U and lower case are not in the Crockford alphabet; a first character over 7 would overflow the time."""
    assert not ids.is_id("evt_" + letter + "1M7XZQ13PQ2QS290DBGHN958X"[:25], "evt")


@given(st.text(max_size=40))
def test_any_text_is_accepted_as_input(text: str) -> None:
    """`is_id` raises for no text, and is true only for ids."""
    assert not ids.is_id(text, "evt") or text.startswith("evt_")
