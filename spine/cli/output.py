"""Output of commands: tables and sentences for people, one JSON document or JSON lines for programs."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from spine.cli.errors import Failure

_PIPED_WIDTH: Final = 240
"""Output to a pipe is this wide, so that no id is cut."""
COLOURS: Final = {
    **dict.fromkeys(("delivered", "enabled", "active", "done", "ok"), "green"),
    **dict.fromkeys(("retrying", "held", "paused", "rolled", "warn"), "yellow"),
    **dict.fromkeys(("dead", "disabled", "revoked", "cancelled", "fail"), "red"),
}


class Output:
    """Prints results to stdout and remarks to stderr."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self._out = _console(sys.stdout.isatty(), stderr=False)
        self.err = _console(sys.stderr.isatty(), stderr=True)

    def document(self, content: Any) -> None:
        """Print a result as one JSON document."""
        sys.stdout.write(orjson.dumps(content, option=orjson.OPT_INDENT_2).decode() + "\n")

    def line(self, content: Any) -> None:
        """Print one result of a stream as one line of JSON."""
        sys.stdout.write(orjson.dumps(content).decode() + "\n")
        sys.stdout.flush()

    def listing(
        self, found: Mapping[str, Any], columns: Sequence[str], rows: Iterable[Sequence[Any]], none: str
    ) -> None:
        """Print a page: as JSON or as a table. For an empty page the table is replaced by the text `none`."""
        if self.as_json:
            self.document(found)
            return
        if not found["data"]:
            self.note(none)
            return
        table = Table(*columns, box=None, pad_edge=False, header_style="bold")
        for column in table.columns:
            column.overflow = "fold"
        for row in rows:
            table.add_row(*(styled(cell) for cell in row))
        self._out.print(table)
        if found["has_more"]:
            self.note("there are more; --limit shows them")

    def resource(self, found: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
        """Print one resource: as JSON, or with one field per line."""
        if self.as_json:
            self.document(found)
            return
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        for name, value in fields.items():
            if value not in (None, "", [], {}):
                table.add_row(name, styled(value))
        self._out.print(table)

    def text(self, text: str, style: str = "") -> None:
        """Print a line for people on stdout."""
        self._out.print(Text(plain(text), style=style), soft_wrap=True)

    def note(self, text: str) -> None:
        """Print a remark for people on stderr."""
        self.err.print(Text(plain(text)), soft_wrap=True)

    def failure(self, failure: Failure) -> None:
        """Print why a command failed, on stderr."""
        if self.as_json:
            sys.stderr.write(orjson.dumps(failure.problem).decode() + "\n")
        else:
            self.err.print(Text.assemble(("error: ", "bold red"), plain(failure.detail)), soft_wrap=True)


def _console(terminal: bool, *, stderr: bool) -> Console:
    return Console(stderr=stderr, highlight=False, width=None if terminal else _PIPED_WIDTH)


def styled(value: Any) -> Text:
    """Return a value as a table cell. The name of a state has its colour."""
    if value is None:
        return Text("")
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return Text(plain(text), style=COLOURS.get(text, ""))


def plain(text: str) -> str:
    """Return the text with control characters escaped: a receiver's response must not control the terminal."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape", "replace").decode() for c in text
    )
