"""The files of the pages: the style sheet, the script that tells a frame's height, and the script that embeds a page."""

from fastapi import Response

from products.pages.page_routes import PUBLIC, page_router
from products.pages.rendering import EMBED_SCRIPT, FRAME_SCRIPT, STYLE, Asset, protections

_FOR_EVER = "public, max-age=31536000, immutable"
"""Pages name these files with their version."""
_AN_HOUR = "public, max-age=3600"
"""Other sites name the embedding script without a version."""

router = page_router()


def _serve(asset: Asset, caching: str) -> Response:
    headers = {**protections(), "Cache-Control": caching, "ETag": f'"{asset.version}"'}
    return Response(
        asset.body, headers=headers | {"Cross-Origin-Resource-Policy": "cross-origin"}, media_type=asset.media_type
    )


@router.get("/pages/page.css", openapi_extra=PUBLIC)
async def page_style() -> Response:
    return _serve(STYLE, _FOR_EVER)


@router.get("/pages/frame.js", openapi_extra=PUBLIC)
async def frame_script() -> Response:
    return _serve(FRAME_SCRIPT, _FOR_EVER)


@router.get("/embed.js", openapi_extra=PUBLIC)
async def embed_script() -> Response:
    return _serve(EMBED_SCRIPT, _AN_HOUR)
