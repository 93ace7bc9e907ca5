"""The parts of an SMS: limits of one part and of several, characters that take two places, and texts beyond GSM-7."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.sms_segments import Segments, sms_segments


@pytest.mark.parametrize(
    ("text", "encoding", "count"),
    [
        ("", "gsm7", 1),
        ("a" * 160, "gsm7", 1),
        ("a" * 161, "gsm7", 2),
        ("a" * 306, "gsm7", 2),
        ("a" * 307, "gsm7", 3),
        ("€" * 80, "gsm7", 1),
        ("€" * 81, "gsm7", 2),
        ("a" * 152 + "€" + "a" * 152, "gsm7", 3),
        ("Grüße aus Österreich", "gsm7", 1),
        ("नमस्ते", "ucs2", 1),
        ("न" * 70, "ucs2", 1),
        ("न" * 71, "ucs2", 2),
        ("👍" * 35, "ucs2", 1),
        ("न" * 66 + "👍" + "न" * 66, "ucs2", 3),
        ("curly “quotes”", "ucs2", 1),
    ],
)
def test_texts_have_their_parts(text: str, encoding: str, count: int) -> None:
    """160 and 153 characters of GSM-7, 70 and 67 of UCS-2; an escaped character or a surrogate pair is not split."""
    assert sms_segments(text) == Segments(encoding, count)  # type: ignore[arg-type]


@given(st.text(max_size=500), st.text(max_size=20))
def test_a_longer_text_never_has_fewer_parts(text: str, more: str) -> None:
    """Adding to a text never lowers what it costs."""
    assert sms_segments(text + more).count >= sms_segments(text).count
