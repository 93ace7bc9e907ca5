"""The reference as pages: `/docs` lists the products, `/docs/{product}` shows one's OpenAPI document.

Everything comes from this installation: RapiDoc is a file in products/assets/ and no page names another host, so the pages
work without a network. The Content-Security-Policy lets scripts come from here only; RapiDoc needs inline styles.
"""

import asyncio
import functools
import gzip
import hashlib
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from spine.kernel.errors import NotFound

router = APIRouter(include_in_schema=False)

ASSETS: Final = Path(__file__).parent / "assets"
VIEWER: Final = "rapidoc-9.3.8.min.js"
_MEDIA_TYPES: Final = {VIEWER: "text/javascript", "reference.css": "text/css"}
_LOCKED_DOWN: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
_INDEX_POLICY: Final = _LOCKED_DOWN + "style-src 'self'; img-src data:"
_PAGE_POLICY: Final = _LOCKED_DOWN + (
    "script-src 'self'; connect-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'"
)
_REVALIDATE: Final = "no-cache"
_FOR_EVER: Final = "public, max-age=31536000, immutable"
_HEAD: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/assets/{style}">
"""


@router.get("/docs")
async def index(request: Request) -> Response:
    """Return the list of the products."""
    rows = "".join(
        f'<li><a href="/docs/{name}">{escape(document["info"]["title"])}</a>'
        f"<p>{escape(document['info']['summary'])} "
        f'<a href="{document_path(name)}">OpenAPI document</a></p></li>\n'
        for name, document in (await _documents(request)).items()
    )
    html = f"{_head('Reference')}<body>\n<main>\n<h1>Reference</h1>\n<ul>\n{rows}</ul>\n</main>\n</body>\n</html>\n"
    return _response(request, html.encode(), "text/html", _REVALIDATE, _INDEX_POLICY)


@router.get("/docs/assets/{name}")
async def asset(name: str, request: Request) -> Response:
    """Return a file of the pages. Its URL changes with its content, so that it may be kept for ever."""
    file, _, version = name.partition("~")
    if file not in _MEDIA_TYPES or version not in ("", _version(file)):
        raise NotFound("there is no such path")
    body, packed = await asyncio.to_thread(_read_asset, file)
    zipped = "gzip" in request.headers.get("accept-encoding", "")
    response = _response(
        request, packed if zipped else body, _MEDIA_TYPES[file], _FOR_EVER if version else _REVALIDATE, _LOCKED_DOWN
    )
    response.headers["Vary"] = "Accept-Encoding"
    if zipped and response.status_code == 200:
        response.headers["Content-Encoding"] = "gzip"
    return response


@router.get("/docs/{product}")
async def page(product: str, request: Request) -> Response:
    """Return the page of one product's document."""
    documents = await _documents(request)
    if product not in documents:
        raise NotFound("there is no such path")
    links = "".join(
        f'<li><a href="/docs/{name}"{" aria-current=page" if name == product else ""}>'
        f"{escape(document['info']['title'])}</a></li>"
        for name, document in documents.items()
    )
    title = escape(documents[product]["info"]["title"])
    html = f"""\
{_head(title)}<script type="module" src="/docs/assets/{VIEWER}~{_version(VIEWER)}"></script>
<body class="reference">
<header><nav aria-label="Products"><ul><li><a href="/docs">Reference</a></li>{links}\
<li><a href="{document_path(product)}">OpenAPI document</a></li></ul></nav></header>
<noscript><p>This page needs JavaScript. The document itself: <a href="{document_path(product)}">OpenAPI</a>.</p></noscript>
<rapi-doc spec-url="{document_path(product)}" render-style="read" theme="light" primary-color="#0b5cad"
 load-fonts="false" regular-font="system-ui, sans-serif" mono-font="ui-monospace, monospace" show-header="false"
 allow-server-selection="false" sort-tags="false" sort-endpoints-by="none" persist-auth="false" update-route="true"
 schema-description-expanded="true"></rapi-doc>
</body>
</html>
"""
    return _response(request, html.encode(), "text/html", _REVALIDATE, _PAGE_POLICY)


def document_path(name: str) -> str:
    """Return the path of a document, by its product's name."""
    return {"spine": "/openapi.json", "platform": "/v1/openapi.json"}.get(name, f"/{name}/v1/openapi.json")


def _head(title: str) -> str:
    return _HEAD.format(style=f"reference.css~{_version('reference.css')}") + f"<title>{title}</title>\n"


async def _documents(request: Request) -> dict[str, dict[str, Any]]:
    documents: dict[str, Callable[[], dict[str, Any]]] = request.app.state.documents
    return await asyncio.to_thread(lambda: {name: document() for name, document in documents.items()})


@functools.cache
def _read_asset(name: str) -> tuple[bytes, bytes]:
    """Return a file as it is, and packed."""
    body = (ASSETS / name).read_bytes()
    return body, gzip.compress(body, mtime=0)


@functools.cache
def _version(name: str) -> str:
    return hashlib.sha256((ASSETS / name).read_bytes()).hexdigest()[:16]


def _response(request: Request, body: bytes, media_type: str, cache_control: str, policy: str) -> Response:
    """Return the body, or 304 if the caller has it."""
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {
        "ETag": tag,
        "Cache-Control": cache_control,
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    known = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
    if tag in known:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=f"{media_type}; charset=utf-8")
