"""Commands for organisations, directly in the database: confirm the address of a signup."""

import asyncio
from typing import Annotated, Any

import typer

from spine.cli.command import CommandContext, command, group, load
from spine.cli.errors import MISUSED, Failure

app = group("Organisations, in the database at DATABASE_URL.")


@command(app, "confirm")
def confirm(context: CommandContext, id: Annotated[str, typer.Argument(help="org_…")]) -> None:
    """Confirm the e-mail address of an organisation that signed up, so that its live keys work."""
    found = in_database(context, "confirm_organisation", id)
    context.out.resource(found, {"id": found["id"], "name": found["name"], "email": found["email"]})


def in_database(context: CommandContext, function: str, *arguments: Any) -> Any:
    """Call a function of `spine.cli.organisations` with DATABASE_URL. Raises Failure if that is not set."""
    database_url = context.environment.environ.get("DATABASE_URL")
    if not database_url:
        raise Failure("DATABASE_URL is not set; without it commands use the API only", exit_code=MISUSED)
    return asyncio.run(load(f"spine.cli.organisations:{function}")(database_url, *arguments))
