"""Pages show brands and texts of tenants and visitors, and run nothing of theirs."""

import re

import pytest
from fastapi import Response

from products.pages.framing import NOWHERE
from products.pages.rendering import Look, html

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7 * 7 }}"


def show(look: Look, *, title: str = "T", detail: str = "D") -> Response:
    """Render the error page, the smallest one."""
    return html("error.html", look, NOWHERE, title=title, detail=detail)


def policy_of(answer: Response) -> dict[str, str]:
    """Return the directives of the Content-Security-Policy."""
    directives = answer.headers["content-security-policy"].split("; ")
    return {name: value for name, _, value in (directive.partition(" ") for directive in directives)}


def test_texts_are_escaped() -> None:
    """Markup in a brand or a text is shown as text."""
    page = bytes(show(Look.of({"name": HOSTILE}), title=HOSTILE, detail=HOSTILE).body).decode()
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "&lt;script&gt;" in page
    assert "{{ 7 * 7 }}" in page


@pytest.mark.parametrize(
    "url",
    [
        "http://a.example/logo.png", "javascript:alert(1)", "data:image/png;base64,x", "//a.example/x", "https://u:p@a.example/x",
        "https://a.example; script-src */x", "", "https://", "https://a example/x", "x",
    ],
)  # fmt: skip
def test_only_https_logos_are_shown(url: str) -> None:
    """An address that is not plain https is left out of page and policy."""
    answer = show(Look.of({"name": "Acme", "logo_url": url}))
    assert b"<img" not in bytes(answer.body)
    assert policy_of(answer)["img-src"] == "'none'"


def test_the_policy_allows_the_origin_of_the_logo_alone() -> None:
    """Images come from the logo's origin, scripts and styles from here, and nothing else from anywhere."""
    answer = show(Look.of({"name": "Acme", "color": "#FFCC00", "logo_url": "https://cdn.example/a/logo.png?x=1"}))
    policy = policy_of(answer)
    assert policy["img-src"] == "https://cdn.example"
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert policy["base-uri"] == "'none'"
    assert policy["form-action"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    page = bytes(answer.body).decode()
    nonce = re.search(r"'nonce-([^']+)'", policy["style-src"])
    assert nonce is not None
    assert f'<style nonce="{nonce[1]}">:root {{ --brand: #ffcc00; --on-brand: #000000; }}</style>' in page
    assert 'alt="Acme" loading="lazy"' in page
    assert "unsafe" not in answer.headers["content-security-policy"]


def test_no_page_has_inline_script_or_style() -> None:
    """What the policy forbids is not on the page: no inline handler, style attribute or script."""
    page = bytes(show(Look.of({"name": "Acme"})).body).decode()
    assert not re.search(r"\son\w+=|style=|<script(?![^>]*src=)", page)


def test_every_page_carries_the_same_protections() -> None:
    """Pages are not stored, not sniffed, and tell other sites nothing of their address. Each has its own nonce."""
    one, other = show(Look()), show(Look())
    assert one.headers["cache-control"] == "no-store"
    assert one.headers["x-content-type-options"] == "nosniff"
    assert one.headers["referrer-policy"] == "same-origin"
    assert one.headers["content-security-policy"] != other.headers["content-security-policy"]
