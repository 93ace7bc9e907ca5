"""`python -m products.openapi`: write the OpenAPI documents that are committed under openapi/."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import orjson

from products.app import build

DIRECTORY: Final = Path(__file__).parent.parent / "openapi"


def render_documents() -> dict[str, bytes]:
    """Return the text of each document, by file name."""
    documents: dict[str, Callable[[], dict[str, Any]]] = build().state.documents
    option = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
    return {f"{name}.json": orjson.dumps(document(), option=option) for name, document in documents.items()}


def drifted() -> list[str]:
    """Return the names of the files that differ from the code: changed, missing or obsolete."""
    rendered = render_documents()
    committed = {path.name: path.read_bytes() for path in DIRECTORY.glob("*.json")}
    return sorted(name for name in rendered.keys() | committed.keys() if rendered.get(name) != committed.get(name))


if __name__ == "__main__":
    DIRECTORY.mkdir(exist_ok=True)
    for name, text in render_documents().items():
        (DIRECTORY / name).write_bytes(text)
