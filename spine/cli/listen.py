"""`spine listen`: receive a workspace's events on this machine, sign them as webhooks, forward them to a local server."""

import os
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from spine.cli.command import CommandContext
from spine.cli.errors import MISUSED, Failure
from spine.cli.event_feed import EventFeed
from spine.cli.forwarder import Forwarder, Outcome, webhook_body
from spine.cli.locations import data_directory, is_http
from spine.cli.times import format_duration, format_time
from spine.supervisor import secret_store
from spine.supervisor.command import StartError
from spine.webhooks.signing import new_secret

_FILE_NAME = "listen.json"


def listen(
    context: CommandContext,
    forward_to: Annotated[str | None, typer.Option(metavar="URL", help="Your server, on this machine or not.")] = None,
    events: Annotated[list[str] | None, typer.Option(help="Only these: exact, 'ticket.*'; repeatable.")] = None,
    print_only: Annotated[
        bool, typer.Option("--print-only", help="Print events with their data; forward none.")
    ] = False,
) -> None:
    """Receive events on this machine, without a public address: signed, verified, forwarded, printed. Ctrl-C ends it."""
    if not print_only and forward_to is None:
        raise Failure("say where to: --forward-to http://127.0.0.1:3000/webhooks, or --print-only", exit_code=MISUSED)
    forwarder = None if print_only or forward_to is None else _forwarder(context, forward_to)
    feed = EventFeed(context.api, events or [], context.environment.sleep, context.out.note)
    feed.start()
    context.out.note(f"listening to {', '.join(events or ['every event'])} at {context.api.url}; Ctrl-C ends it")
    received = accepted = 0
    try:
        for event in feed.follow():
            received += 1
            outcome = forwarder.forward(event) if forwarder and event["data"] is not None else None
            accepted += bool(outcome and outcome.is_accepted)
            _print(context, event, outcome, with_data=forwarder is None)
    except KeyboardInterrupt:
        pass
    forwarded = f", {accepted} taken by {forward_to}" if forwarder else ""
    context.out.note(f"stopped: {received} received{forwarded}")


def _forwarder(context: CommandContext, url: str) -> Forwarder:
    if not is_http(url):
        raise Failure(f"{url} is no address to forward to; give it as http://host:port/path", exit_code=MISUSED)
    secret = _secret(context)
    context.out.note(f"verify with this secret, which stays the same: {secret}")
    forwarder = Forwarder(url, secret, context.environment, context.out.note)
    context.resources.callback(forwarder.close)
    return forwarder


def _secret(context: CommandContext) -> str:
    """Return this machine's signing secret, from the data directory if it is writable, else from the user's configuration."""
    directory = data_directory(context.environment.environ)
    if not os.access(directory, os.W_OK):
        settings = context.environment.environ.get("XDG_CONFIG_HOME") or "~/.config"
        directory = Path(settings).expanduser() / "spine"
    try:
        kept = secret_store.read(directory / _FILE_NAME)
        if "secret" not in kept:
            kept = {"secret": new_secret()}
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            secret_store.write(directory / _FILE_NAME, orjson.dumps(kept).decode() + "\n")
    except (StartError, OSError) as error:
        raise Failure(f"cannot keep the listener's secret in {directory}: {error}") from error
    return kept["secret"]


def _print(context: CommandContext, event: dict[str, Any], outcome: Outcome | None, *, with_data: bool) -> None:
    if context.out.as_json:
        forwarded = outcome and {
            "status_code": outcome.status_code,
            "error": outcome.error,
            "latency_s": round(outcome.latency_s, 4),
        }
        context.out.line({"event": event, "forwarded": forwarded})
        return
    words = [format_time(context.environment.now().isoformat())[11:], event["type"], event["id"]]
    if event["data"] is None:
        words.append("its payload was erased; not forwarded")
    if outcome is not None:
        words += [str(outcome.status_code or outcome.error), format_duration(outcome.latency_s)]
    style = "" if outcome is None else "green" if outcome.is_accepted else "red"
    context.out.text("  ".join(words), style)
    if with_data and event["data"] is not None:
        context.out.text(orjson.dumps(orjson.loads(webhook_body(event)), option=orjson.OPT_INDENT_2).decode(), "dim")
