"""Write the boards' JSON: `python -m dashboards.build`. The files are committed, so that Grafana needs no Python."""

import json
from pathlib import Path
from typing import Final

from dashboards.overview import OVERVIEW
from dashboards.panel import Board, render
from dashboards.webhooks import WEBHOOKS

BOARDS: Final = (OVERVIEW, WEBHOOKS)
DIRECTORY: Final = Path(__file__).parent / "boards"


def text(board: Board) -> str:
    """Return the content of the board's file."""
    return json.dumps(render(board), indent=1, ensure_ascii=False) + "\n"


def path(board: Board) -> Path:
    """Return the path of the board's file."""
    return DIRECTORY / f"{board.uid.removeprefix('spine-')}.json"


if __name__ == "__main__":
    for each in BOARDS:
        path(each).write_text(text(each))
