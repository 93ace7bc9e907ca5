"""The command line `spine`: the list of all command groups and commands."""

import asyncio
import os
from typing import Annotated, Any

import typer

from spine import __version__
from spine.cli import dead_letters, deliveries, endpoints, events, keys, organisation_commands, replays, secrets
from spine.cli.command import CommandContext, command, load
from spine.cli.errors import MISUSED, Failure
from spine.cli.listen import listen

app = typer.Typer(
    help="Spine: webhooks and messages that arrive. Start with `spine up`, look with `spine doctor`, try `spine listen`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(keys.app, name="keys")
app.add_typer(organisation_commands.app, name="organisations")
app.add_typer(endpoints.app, name="endpoints")
app.add_typer(events.app, name="events")
app.add_typer(deliveries.app, name="deliveries")
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(replays.app, name="replays")
app.add_typer(secrets.app, name="secrets")
command(app, "listen")(listen)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Spine: webhooks and messages that arrive. Start with `spine up`, look with `spine doctor`, try `spine listen`."""


@app.command("up")
def up() -> None:
    """Run Spine on this machine until Ctrl-C: databases, API and workers (the same as `make up`)."""
    load("spine.supervisor.main:main")()


@command(app, "demo")
def demo(context: CommandContext) -> None:
    """Play one story through all products of a running installation, over REST, hosted pages and MCP, in a test workspace."""
    load("spine.cli.demo.command:play_demo")(context)


@command(app, "migrate")
def migrate(context: CommandContext) -> None:
    """Bring the database at DATABASE_URL up to date; needs its owning role."""
    database_url = context.environment.environ.get("DATABASE_URL")
    if not database_url:
        raise Failure("DATABASE_URL is not set", exit_code=MISUSED)
    try:
        asyncio.run(load("spine.kernel.database:migrate")(database_url))
    except (OSError, ValueError, load("asyncpg:PostgresError"), load("alembic.util:CommandError")) as error:
        raise Failure(f"the database cannot be migrated: {error}") from error
    if context.out.as_json:
        context.out.document({"migrated": True})
    else:
        context.out.text("the database is up to date")


@command(app, "doctor")
def doctor(context: CommandContext) -> None:
    """Say what is wrong with this installation and how to mend it; exit code 1 where something is."""
    findings: list[Any] = asyncio.run(load("spine.cli.doctor.checks:run_checks")(os.environ, context.url))
    has_failed = load("spine.cli.doctor.report:report")(context.out, findings)
    if has_failed:
        raise typer.Exit(1)
