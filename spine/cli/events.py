"""Commands for events: send, list, follow, show."""

import sys
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer

from spine.cli.command import CommandContext, Count, Types, command, group
from spine.cli.errors import MISUSED, Failure
from spine.cli.event_feed import EventFeed
from spine.cli.times import format_time

app = group("Events: send your own, see what was sent.")
_PATH: Final = "/v1/events"
_COLUMNS: Final = ("time", "type", "id", "data")
_DATA_WIDTH: Final = 100


@command(app, "send")
def send(
    context: CommandContext,
    type: Annotated[str, typer.Argument(help="The event's type, such as order.paid.")],
    data: Annotated[str, typer.Argument(help="Its data as a JSON object; @FILE or - to read it from there.")] = "{}",
    idempotency_key: Annotated[str | None, typer.Option(help="Sends it once, however often it is said.")] = None,
) -> None:
    """Send an event."""
    event = context.api.post(_PATH, {"type": type, "data": _parse_data(data)}, idempotency_key=idempotency_key)
    context.out.resource(event, {"id": event["id"], "type": event["type"], "time": format_time(event["timestamp"])})


def _parse_data(text: str) -> dict[str, Any]:
    try:
        raw = sys.stdin.read() if text == "-" else Path(text[1:]).read_text() if text.startswith("@") else text
        data = orjson.loads(raw)
    except OSError as error:
        raise Failure(f"cannot read {text[1:]}: {error.strerror}", exit_code=MISUSED) from error
    except orjson.JSONDecodeError as error:
        raise Failure(f"the data is not JSON: {error}", exit_code=MISUSED) from error
    if not isinstance(data, dict):
        raise Failure('the data is a JSON object, such as {"order": "A-1"}', exit_code=MISUSED)
    return data


def _row(event: dict[str, Any]) -> tuple[str, ...]:
    data = "(erased)" if event["data"] is None else orjson.dumps(event["data"]).decode()
    short = data if len(data) <= _DATA_WIDTH else data[: _DATA_WIDTH - 1] + "…"
    return format_time(event["timestamp"]), event["type"], event["id"], short


@command(app, "list")
def list_(
    context: CommandContext,
    type: Types = None,
    limit: Count = 25,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print events as they come, until Ctrl-C.")] = False,
) -> None:
    """List events, oldest first; with --follow only those that come from now on."""
    if not follow:
        found = context.api.first(_PATH, limit, type=type)
        context.out.listing(found, _COLUMNS, map(_row, found["data"]), "no events")
        return
    try:
        for event in EventFeed(context.api, type or [], context.environment.sleep, context.out.note).follow():
            if context.out.as_json:
                context.out.line(event)
            else:
                context.out.text("  ".join(_row(event)))
    except KeyboardInterrupt:
        context.out.note("stopped")


@command(app, "show")
def show(context: CommandContext, id: Annotated[str, typer.Argument(help="evt_…")]) -> None:
    """Show an event with its data."""
    context.out.document(context.api.get(f"{_PATH}/{id}"))
