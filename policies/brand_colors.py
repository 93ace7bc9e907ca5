"""Brand colours: the text colour that can be read on one (WCAG 2.2, success criterion 1.4.3)."""

import re
from typing import Final

DEFAULT_COLOR: Final = "#1f3a5f"
"""The colour of a page whose brand has none."""
DARK: Final = "#000000"
LIGHT: Final = "#ffffff"
_COLOR: Final = re.compile(r"#[0-9a-f]{6}")


def brand_color(text: str | None) -> str:
    """Return the colour in lower case, or the default one if it is not `#rrggbb`."""
    color = (text or "").lower()
    return color if _COLOR.fullmatch(color) else DEFAULT_COLOR


def luminance(color: str) -> float:
    """Return the relative luminance of `#rrggbb`: 0 for black, 1 for white."""
    red, green, blue = (_linear(int(color[at : at + 2], 16) / 255) for at in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours: 1 to 21."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def text_on(color: str) -> str:
    """Return black or white, whichever has more contrast with the colour: at least 4.58, where AA asks for 4.5."""
    return max((LIGHT, DARK), key=lambda text: contrast(text, color))


def _linear(channel: float) -> float:
    return channel / 12.92 if channel <= 0.04045 else float(((channel + 0.055) / 1.055) ** 2.4)
