"""Text on a brand's colour can be read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.brand_colors import DEFAULT_COLOR, brand_color, contrast, text_on

COLORS = st.integers(0, 0xFFFFFF).map(lambda number: f"#{number:06x}")


@given(COLORS)
def test_text_on_any_colour_meets_aa(color: str) -> None:
    """Black or white on any colour has a contrast of at least 4.5 (WCAG 2.2, 1.4.3)."""
    assert contrast(text_on(color), color) >= 4.5


@pytest.mark.parametrize(
    ("one", "other", "ratio"),
    [
        ("#000000", "#ffffff", 21.0),
        ("#ffffff", "#ffffff", 1.0),
        ("#777777", "#ffffff", 4.48),
        ("#ff0000", "#ffffff", 4.0),
    ],
)
def test_the_contrast_is_that_of_wcag(one: str, other: str, ratio: float) -> None:
    """The ratio agrees with published ones, whichever colour comes first."""
    assert contrast(one, other) == pytest.approx(ratio, abs=0.005)
    assert contrast(other, one) == contrast(one, other)


@pytest.mark.parametrize(("color", "text"), [("#ffff00", "#000000"), ("#00008b", "#ffffff"), ("#777777", "#000000")])
def test_the_text_takes_the_side_with_more_contrast(color: str, text: str) -> None:
    """Light colours get black text, dark ones white text."""
    assert text_on(color) == text


@pytest.mark.parametrize("text", [None, "", "red", "#fff", "#12345g", "#1234567", "#123456;}", "url(x)", "#12345\n6"])
def test_what_is_no_colour_becomes_the_default(text: str | None) -> None:
    """Only `#rrggbb` reaches a style sheet."""
    assert brand_color(text) == DEFAULT_COLOR
    assert brand_color("#ABCDEF") == "#abcdef"
