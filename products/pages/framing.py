"""Where a page may be framed, who may post to it, and who may read it from a script: origins (requirement T-13)."""

from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

from fastapi import Request

from spine.kernel.errors import Forbidden
from spine.kernel.platform import Platform

ANYWHERE: Final = "*"


@dataclass(frozen=True, slots=True)
class Framing:
    """The origins that may embed a page: a list, or any.

    A support form is framed by its `allowed_origins` alone. A booking page has no such list and is framed by anybody: the pages use
    no cookies, so a foreign frame around one can do nothing in a visitor's name that the visitor does not type.
    """

    origins: tuple[str, ...] | Literal["*"]

    @property
    def ancestors(self) -> str:
        """The value of the directive `frame-ancestors`."""
        if self.origins == ANYWHERE:
            return "*"
        return " ".join(filter(is_origin, self.origins)) or "'none'"

    def names(self, origin: str) -> bool:
        """True if this origin is on the list."""
        return self.origins != ANYWHERE and is_origin(origin) and origin.lower() in self.origins


NOWHERE: Final = Framing(())


def is_origin(text: str) -> bool:
    """True for `scheme://host` or `scheme://host:port` and nothing else, so that it can stand in a header."""
    try:
        parts = urlsplit(text)
        plain = parts.hostname is not None and text == f"{parts.scheme}://{parts.netloc}" and parts.port != 0
    except ValueError:
        return False
    return (
        plain
        and parts.scheme in ("http", "https")
        and not any(char in text for char in " ;,'\"@\\*")
        and text.isascii()
    )


def own_origins(request: Request, platform: Platform) -> frozenset[str]:
    """Return the origins under which this API is reached: its public URL, and what the browser addressed the request to."""
    public = urlsplit(platform.http.url)
    host = request.headers.get("host", "").lower()
    return frozenset((f"{public.scheme}://{public.netloc}".lower(), f"http://{host}", f"https://{host}"))


def check_origin(request: Request, platform: Platform, framing: Framing) -> None:
    """Raise Forbidden for a submission that a browser sends from a page of another origin than ours or a listed one.

    Browsers name the origin of every POST. A request without these headers comes from no browser: nobody's rights are abused,
    because no cookie is read, and the render token is still asked for.
    """
    origin = request.headers.get("origin")
    site = request.headers.get("sec-fetch-site")
    if origin is not None and origin != "null":
        allowed = origin.lower() in own_origins(request, platform) or framing.names(origin)
    else:
        allowed = site in ("same-origin", "none") or (site is None and origin is None)
    if not allowed:
        raise Forbidden("this page takes no submissions from another site", code="origin_not_allowed", param="Origin")


def cors_headers(request: Request, framing: Framing) -> dict[str, str]:
    """Return the headers that let a script of a listed origin read the answer. No credentials are allowed, because none are used."""
    if framing.origins == ANYWHERE:
        return {}
    origin = request.headers.get("origin", "")
    return {"Vary": "Origin"} | ({"Access-Control-Allow-Origin": origin} if framing.names(origin) else {})
