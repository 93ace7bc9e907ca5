"""Brands: how a hosted page or form looks."""

from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from policies.brand_colors import DEFAULT_COLOR
from spine.kernel.resource import Body, Name, Out


def _long_color(color: str) -> str:
    """Return `#rgb` as `#rrggbb`, in lower case."""
    digits = color[1:].lower()
    return "#" + ("".join(digit * 2 for digit in digits) if len(digits) == 3 else digits)


Color = Annotated[
    str,
    StringConstraints(pattern=r"^#([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$"),
    AfterValidator(_long_color),
    Field(description="As `#rrggbb` or `#rgb`."),
]
LogoUrl = Annotated[
    str,
    StringConstraints(max_length=2048, pattern=r"^https://[^\s\"'<>\\]+$"),
    Field(description="An image's URL. It is https, as the page is."),
]


class Brand(Body):
    """How a page is to look."""

    name: Name
    color: Color = DEFAULT_COLOR
    logo_url: LogoUrl | None = None


class BrandOut(Out):
    """How a page looks."""

    name: str
    color: str
    logo_url: str | None
