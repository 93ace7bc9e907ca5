"""Commands for dead letters: list, show, replay."""

import sys
from typing import Annotated, Any, Final

import typer

from spine.cli.command import CommandContext, Count, Endpoint, Since, Types, Until, command, group
from spine.cli.deliveries import show_delivery
from spine.cli.errors import MISUSED, Failure
from spine.cli.replays import PATH as REPLAYS
from spine.cli.replays import show_replay, watch
from spine.cli.times import format_time, parse_time

app = group("Dead letters: deliveries we gave up on, and their return.")
_PATH: Final = "/v1/dead_letters"


def _timestamp(context: CommandContext, text: str | None) -> str | None:
    return parse_time(text, context.environment.now()) if text else None


@command(app, "list")
def list_(
    context: CommandContext,
    endpoint: Endpoint = None,
    type: Types = None,
    since: Since = None,
    until: Until = None,
    limit: Count = 25,
) -> None:
    """List dead letters, newest first."""
    found = context.api.first(
        _PATH,
        limit,
        endpoint_id=endpoint,
        type=type,
        since=_timestamp(context, since),
        until=_timestamp(context, until),
    )
    rows = [
        (
            *(it[name] for name in ("id", "event_type", "endpoint_id", "reason")),
            it["last_status_code"] or it["last_error"],
            it["attempts"],
            format_time(it["died_at"]),
        )
        for it in found["data"]
    ]
    columns = ("id", "event type", "endpoint", "reason", "last answer", "attempts", "died")
    context.out.listing(found, columns, rows, "no dead letters")


@command(app, "show")
def show(context: CommandContext, id: Annotated[str, typer.Argument(help="dlv_…")]) -> None:
    """Show a dead letter: what it was, what its endpoint said last, and every attempt before."""
    dead_letter = context.api.get(f"{_PATH}/{id}")
    if context.out.as_json:
        context.out.document(dead_letter)
    else:
        show_delivery(context, context.api.get(f"/v1/deliveries/{dead_letter['delivery_id']}"))


@command(app, "replay")
def replay(
    context: CommandContext,
    id: Annotated[str | None, typer.Argument(help="One dead letter; without it, all that the filters choose.")] = None,
    endpoint: Endpoint = None,
    type: Types = None,
    since: Since = None,
    until: Until = None,
    rate: Annotated[float | None, typer.Option(min=0.01, help="Put back at most so many a second.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    wait: Annotated[bool, typer.Option("--watch/--no-watch", help="Show the progress to its end.")] = True,
) -> None:
    """Deliver dead letters once more: counts them, asks, shows the progress; Ctrl-C pauses."""
    if id is not None:
        if endpoint or type or since or until or rate:
            raise Failure("give one dead letter or filters, not both", exit_code=MISUSED)
        show_delivery(context, context.api.post(f"/v1/deliveries/{id}/replay"))
        return
    filters = {
        "endpoint_id": endpoint,
        "types": type,
        "since": _timestamp(context, since),
        "until": _timestamp(context, until),
        "status": "dead",
    }
    request: dict[str, Any] = {"filter": {name: value for name, value in filters.items() if value}}
    counted = context.api.post(REPLAYS, {**request, "dry_run": True})
    if not _is_confirmed(context, counted["total"], yes, at_least=counted.get("at_least", False)):
        return
    started = context.api.post(REPLAYS, {**request, **({"rate_per_s": rate} if rate else {})})
    if wait:
        watch(context, started)
    else:
        show_replay(context, started)


def _is_confirmed(context: CommandContext, total: int, yes: bool, *, at_least: bool) -> bool:
    count = f"at least {total}" if at_least else str(total)
    if total == 0 and not at_least:
        if context.out.as_json:
            context.out.document({"total": 0})
        else:
            context.out.note("no dead letters are chosen by these filters; nothing to do")
        return False
    if yes:
        context.out.note(f"replaying {count}")
        return True
    if context.out.as_json:
        raise Failure(f"{count} would be replayed; say --yes", exit_code=MISUSED)
    if not sys.stdin.isatty():
        context.out.note("(answer on the standard input, or say --yes)")
    return typer.confirm(f"Replay {count} dead {'letter' if total == 1 else 'letters'}?", err=True)
