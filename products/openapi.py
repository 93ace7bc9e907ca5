"""`python -m products.openapi`: write the OpenAPI documents that are committed under openapi/.

With `--check` nothing is written: the exit code is 1 if a document differs from the code, and the output names it.
"""

import sys
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


def main() -> None:
    """Write the documents, or check them."""
    if "--check" in sys.argv[1:]:
        names = drifted()
        if names:
            sys.exit(
                f"openapi/ differs from the code: {', '.join(names)}; run `make openapi` and look at the difference"
            )
        return
    DIRECTORY.mkdir(exist_ok=True)
    for name, text in render_documents().items():
        (DIRECTORY / name).write_bytes(text)


if __name__ == "__main__":
    main()
