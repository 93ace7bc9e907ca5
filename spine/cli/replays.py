"""Commands for replays: list, show, pause, resume, cancel; show the progress until the end."""

import sys
from typing import Annotated, Any, Final

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from spine.cli.command import CommandContext, Count, command, group
from spine.cli.errors import INTERRUPTED, Failure
from spine.cli.times import format_time

app = group("Replays: many deliveries put back at once.")
PATH: Final = "/v1/replays"
_POLL_INTERVAL_S: Final = 0.5
_FINAL: Final = {"done", "cancelled"}
_STALLED_AFTER: Final = 40
"""Polls without progress, after which the possible reasons are printed."""
_STALLED: Final = (
    "nothing ended for a while: what is left is being retried, or held because its endpoint is disabled "
    "(spine deliveries list --status retrying, --status held). Ctrl-C pauses the replay"
)
Id = Annotated[str, typer.Argument(help="rpl_…")]


def _format_progress(replay: dict[str, Any]) -> str:
    progress = replay["progress"]
    return f"{progress['done']} delivered, {progress['failed']} failed, of {progress['total']}"


def show_replay(context: CommandContext, replay: dict[str, Any]) -> None:
    """Print a replay and its progress."""
    filters = ", ".join(f"{name}={value}" for name, value in (replay.get("filter") or {}).items() if value)
    fields = {
        "replay": replay["id"],
        "status": replay["status"],
        "progress": _format_progress(replay),
        "filter": filters,
        "rate": f"{replay['rate_per_s']:g} a second" if replay.get("rate_per_s") else None,
        "created": format_time(replay.get("created_at")),
    }
    context.out.resource(replay, fields)


def watch(context: CommandContext, replay: dict[str, Any]) -> None:
    """Show the progress of a replay until it ends. Ctrl-C pauses it.

    Raises Failure if deliveries failed or the user interrupted it.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    is_shown = sys.stderr.isatty() and not context.out.as_json
    with Progress(*columns, console=context.out.err, disable=not is_shown, transient=True) as bar:
        task = bar.add_task("replaying", total=replay["progress"]["total"] or None)
        stalled = 0
        try:
            while replay["status"] not in _FINAL and replay["status"] != "paused":
                context.environment.sleep(_POLL_INTERVAL_S)
                before, replay = replay["progress"], context.api.get(f"{PATH}/{replay['id']}")
                progress = replay["progress"]
                stalled = stalled + 1 if progress == before else 0
                if stalled == _STALLED_AFTER:
                    context.out.note(_STALLED)
                text = f"{progress['done']} delivered, {progress['failed']} failed"
                bar.update(task, completed=progress["done"] + progress["failed"], description=text)
        except KeyboardInterrupt:
            _pause(context, replay["id"])
    show_replay(context, replay)
    if replay["progress"]["failed"]:
        raise Failure(
            f"{replay['progress']['failed']} of {replay['progress']['total']} failed; see `spine dead-letters list`"
        )


def _pause(context: CommandContext, id: str) -> None:
    try:
        context.api.post(f"{PATH}/{id}/pause")
    except Failure as failure:
        raise Failure(f"{id} could not be paused: {failure.detail}", exit_code=INTERRUPTED) from failure
    raise Failure(f"paused {id}; go on with: spine replays resume {id}", exit_code=INTERRUPTED)


@command(app, "list")
def list_(context: CommandContext, limit: Count = 25) -> None:
    """List replays, newest first."""
    found = context.api.first(PATH, limit)
    rows = [(it["id"], it["status"], _format_progress(it), format_time(it.get("created_at"))) for it in found["data"]]
    context.out.listing(found, ("id", "status", "progress", "created"), rows, "no replays")


@command(app, "show")
def show(context: CommandContext, id: Id) -> None:
    """Show a replay and how far it is."""
    show_replay(context, context.api.get(f"{PATH}/{id}"))


@command(app, "pause")
def pause(context: CommandContext, id: Id) -> None:
    """Stop taking up deliveries; what is under way goes on."""
    show_replay(context, context.api.post(f"{PATH}/{id}/pause"))


@command(app, "resume")
def resume(
    context: CommandContext,
    id: Id,
    wait: Annotated[bool, typer.Option("--watch", help="Show its progress to the end.")] = False,
) -> None:
    """Go on with a paused replay."""
    replay = context.api.post(f"{PATH}/{id}/resume")
    if wait:
        watch(context, replay)
    else:
        show_replay(context, replay)


@command(app, "cancel")
def cancel(context: CommandContext, id: Id) -> None:
    """End a replay; what it put back stays put back."""
    show_replay(context, context.api.post(f"{PATH}/{id}/cancel"))
