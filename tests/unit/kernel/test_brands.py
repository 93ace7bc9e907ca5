"""Brands as callers give them."""

import pytest
from pydantic import ValidationError

from spine.kernel.brands import Brand


@pytest.mark.parametrize(("given", "kept"), [("#ABC", "#aabbcc"), ("#1A73E8", "#1a73e8"), ("#000000", "#000000")])
def test_a_color_is_kept_in_its_long_form(given: str, kept: str) -> None:
    """`#rgb` and `#rrggbb` are one thing: pages know the long form alone."""
    assert Brand(name="Acme", color=given).color == kept


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("color", "red"),
        ("color", "#1234"),
        ("color", "#12345g"),
        ("logo_url", "http://acme.example/logo.png"),
        ("logo_url", 'https://acme.example/"onload="x'),
        ("logo_url", "javascript:alert(1)"),
    ],
)
def test_what_cannot_be_shown_safely_is_refused(field: str, value: str) -> None:
    """Only a colour in hexadecimal digits, and only an https address without quotes, go into a page."""
    with pytest.raises(ValidationError):
        Brand(name="Acme", **{field: value})
