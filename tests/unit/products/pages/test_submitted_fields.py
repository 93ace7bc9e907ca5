"""The bodies of forms are read under limits."""

from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from products.pages.submitted_fields import MAX_FIELDS, parse_fields, text_of
from spine.kernel.errors import InvalidBody

TEXT = st.text(st.characters(min_codepoint=32, exclude_characters="\x7f", exclude_categories=["Cs"]), max_size=40)


@given(st.dictionaries(TEXT.filter(bool), TEXT, max_size=10))
def test_what_a_browser_encodes_is_read_again(fields: dict[str, str]) -> None:
    """Every field arrives as it was typed, empty ones included."""
    assert parse_fields(urlencode(fields).encode()) == fields


@pytest.mark.parametrize(
    ("body", "value"),
    [(b"a=1%0D%0A2", "1\n2"), (b"a=1%0D2", "1\n2"), (b"a=x%00y%1By%7F", "xyy"), (b"a=%09t", "\tt"), (b"a=", "")],
)
def test_line_ends_and_control_characters_are_cleaned(body: bytes, value: str) -> None:
    """Line ends become one character, and what neither Postgres nor a reader can take is dropped."""
    assert parse_fields(body) == {"a": value}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"a=1&a=2", "twice"),
        (b"a=%FF", "UTF-8"),
        (b"a=\xff", "UTF-8"),
        ("&".join(f"f{n}=" for n in range(MAX_FIELDS + 1)).encode(), "32 fields"),
    ],
)
def test_a_malformed_body_is_refused(body: bytes, says: str) -> None:
    """A repeated field, another encoding than UTF-8 and too many fields are refused."""
    with pytest.raises(InvalidBody, match=says):
        parse_fields(body)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    """Whatever is posted gives fields or a refusal, never an error."""
    try:
        fields = parse_fields(body)
    except InvalidBody:
        return
    assert all("\x00" not in value for value in fields.values())


def test_white_space_at_the_ends_does_not_count() -> None:
    """A field of white space is an empty one, as is one that is missing."""
    assert text_of({"a": " \n x y "}, "a") == "x y"
    assert text_of({"a": " "}, "a") == text_of({}, "a") == ""
