"""Origins: who may frame a page, and which headers that makes."""

import pytest

from products.pages.framing import ANYWHERE, NOWHERE, Framing, is_origin


@pytest.mark.parametrize(
    "text", ["https://shop.example", "http://localhost:3000", "https://[::1]:8443", "https://a.b-c.example"]
)
def test_an_origin_is_scheme_host_and_port(text: str) -> None:
    """Plain origins are taken."""
    assert is_origin(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "*", "null", "https://", "shop.example", "https://shop.example/", "https://shop.example/x", "https://u@shop.example",
        "javascript:alert(1)", "https://a.example; script-src *", "https://a.example https://b.example", "https://*.example",
        "https://a.example:99999", "https://a.example,b", "https://é.example", "'self'", "data:text/html,x", "https://[::1",
    ],
)  # fmt: skip
def test_what_could_change_a_header_is_no_origin(text: str) -> None:
    """Nothing that is more than an origin reaches a header."""
    assert not is_origin(text)


def test_a_page_is_framed_by_whom_it_lists() -> None:
    """A list without origins lets nobody frame the page. Entries that are no origins are left out."""
    assert NOWHERE.ancestors == "'none'"
    assert Framing(("https://a.example", "https://b.example")).ancestors == "https://a.example https://b.example"
    assert Framing(("https://a.example; script-src *",)).ancestors == "'none'"
    assert Framing(ANYWHERE).ancestors == "*"


def test_an_open_page_lists_nobody_for_its_submissions() -> None:
    """That anybody may frame a page lets no foreign origin post to it."""
    assert not Framing(ANYWHERE).names("https://a.example")
    assert Framing(("https://a.example",)).names("https://a.example")
    assert Framing(("https://a.example",)).names("https://A.example")
    assert not Framing(("https://a.example",)).names("https://b.example")
