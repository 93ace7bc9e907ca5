"""`python -m products.openapi_changes`: exit code 1 and a list if openapi/ breaks callers of openapi/released/.

With `--release` the present documents and error codes become the released ones. They are compared without the document of
the suite, which has nothing that the products' documents do not have.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from products.openapi_changes.document_changes import breaking_changes
from products.openapi_changes.error_codes import error_codes

ROOT: Final = Path(__file__).parent.parent.parent
_SUITE: Final = "spine.json"
_CODES: Final = "error_codes.json"


def changes(root: Path) -> Iterator[str]:
    """Yield every breaking change since the release, with the name of its document."""
    released = root / "openapi/released"
    for path in sorted(released.glob("*.json")):
        old = json.loads(path.read_bytes())
        if path.name == _CODES:
            gone = set(old) - set(error_codes(root))
            yield from (f"error codes: {code} is gone" for code in sorted(gone))
        elif not (root / "openapi" / path.name).exists():
            yield f"{path.stem}: the document is gone"
        else:
            new = json.loads((root / "openapi" / path.name).read_bytes())
            yield from (f"{path.stem}: {change}" for change in breaking_changes(old, new))


def release(root: Path) -> None:
    """Take the present documents and error codes as released."""
    released = root / "openapi/released"
    released.mkdir(exist_ok=True)
    for path in released.glob("*.json"):
        path.unlink()
    for path in (root / "openapi").glob("*.json"):
        if path.name != _SUITE:
            (released / path.name).write_bytes(path.read_bytes())
    (released / _CODES).write_text(json.dumps(error_codes(root), indent=2) + "\n")


def main() -> None:
    """Check the documents, or release them."""
    if "--release" in sys.argv[1:]:
        release(ROOT)
        return
    found = list(changes(ROOT))
    if found:
        advice = "Callers depend on this. Keep it, or take the change as released with `make release-openapi`."
        sys.exit("\n".join(["openapi/ breaks callers of openapi/released/:", *found, advice]))


if __name__ == "__main__":
    main()
