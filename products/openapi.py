"""`python -m products.openapi`: write the OpenAPI documents anew, as they are committed under openapi/."""

from pathlib import Path
from typing import Any, Final

import orjson

from products.app import build

DIRECTORY: Final = Path(__file__).parent.parent / "openapi"


def texts() -> dict[str, bytes]:
    """Each document as the text of its file, by the file's name."""
    documents: dict[str, dict[str, Any]] = build().state.documents()
    option = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
    return {f"{name}.json": orjson.dumps(document, option=option) for name, document in documents.items()}


def drifted() -> list[str]:
    """The files that are not what the code says now: changed, missing, or left over."""
    made = texts()
    kept = {path.name: path.read_bytes() for path in DIRECTORY.glob("*.json")}
    return sorted(name for name in made.keys() | kept.keys() if made.get(name) != kept.get(name))


if __name__ == "__main__":
    DIRECTORY.mkdir(exist_ok=True)
    for name, text in texts().items():
        (DIRECTORY / name).write_bytes(text)
