"""HTML: the templates, the brand of a page, and the headers of every answer."""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

from fastapi import Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from policies.brand_colors import DEFAULT_COLOR, brand_color, text_on
from products.pages.framing import ANYWHERE, Framing, is_origin

_HERE: Final = Path(__file__).parent
_TEMPLATES: Final = Environment(
    loader=FileSystemLoader(_HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)


@dataclass(frozen=True, slots=True)
class Asset:
    """A file that is served as it is. `version` changes with its bytes."""

    body: bytes
    media_type: str
    version: str

    @classmethod
    def read(cls, name: str, media_type: str) -> Self:
        """Read the file of this name in `static/`."""
        body = (_HERE / "static" / name).read_bytes()
        return cls(body, media_type, hashlib.sha256(body).hexdigest()[:12])


STYLE: Final = Asset.read("page.css", "text/css; charset=utf-8")
FRAME_SCRIPT: Final = Asset.read("frame.js", "text/javascript; charset=utf-8")
EMBED_SCRIPT: Final = Asset.read("embed.js", "text/javascript; charset=utf-8")
_TEMPLATES.globals |= {"style_version": STYLE.version, "frame_script_version": FRAME_SCRIPT.version}


@dataclass(frozen=True, slots=True)
class Look:
    """The brand of a page: what is safe to show of it."""

    name: str = ""
    color: str = DEFAULT_COLOR
    logo_url: str | None = None

    @classmethod
    def of(cls, brand: Mapping[str, Any]) -> Self:
        """Return the look of a stored brand. A colour or an address that could not be shown safely is left out."""
        logo_url = brand.get("logo_url")
        return cls(
            name=str(brand.get("name") or ""),
            color=brand_color(brand.get("color")),
            logo_url=logo_url if logo_url and _origin_of(str(logo_url)) else None,
        )

    @property
    def text_color(self) -> str:
        """The colour of text on the brand's colour."""
        return text_on(self.color)

    @property
    def logo_origin(self) -> str | None:
        """The only foreign origin that the page loads anything from."""
        return _origin_of(self.logo_url) if self.logo_url else None


PLAIN: Final = Look()


def _origin_of(url: str) -> str | None:
    """Return the origin of an https URL; None for another one and for one that cannot stand in a header."""
    try:
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
    except ValueError:
        return None
    return origin if parts.scheme == "https" and is_origin(origin) else None


def html(
    template: str,
    look: Look,
    framing: Framing,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    **values: Any,
) -> Response:
    """Render a template into an answer with the security headers of every page. Nothing in it may be stored by caches."""
    nonce = secrets.token_urlsafe(16)
    text = _TEMPLATES.get_template(template).render(look=look, nonce=nonce, **values)
    policy = _content_policy(look, framing, nonce)
    return Response(
        text,
        status,
        {**protections(), "Content-Security-Policy": policy, "Cache-Control": "no-store", **(headers or {})},
        "text/html; charset=utf-8",
    )


def error_page(title: str, detail: str, status: int, headers: Mapping[str, str] | None = None) -> Response:
    """Return a page that says what went wrong. It has no controls, so it may be framed anywhere: an embedded form shows it."""
    return html("error.html", PLAIN, Framing(ANYWHERE), status=status, headers=headers, title=title, detail=detail)


def protections() -> dict[str, str]:
    """Return the headers of every answer. `same-origin` keeps the links of tickets and appointments from other sites, while a
    browser still names the origin of a submission, which it would not under `no-referrer`.
    """
    return {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin"}


def _content_policy(look: Look, framing: Framing, nonce: str) -> str:
    directives = {
        "default-src": "'none'",
        "style-src": f"'self' 'nonce-{nonce}'",
        "script-src": "'self'",
        "img-src": look.logo_origin or "'none'",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": framing.ancestors,
    }
    return "; ".join(f"{name} {value}" for name, value in directives.items())
