"""Commands for the secrets at rest: seal them again after a new encryption key."""

import asyncio

import typer

from spine.cli.command import CommandContext, command, group, load
from spine.cli.errors import MISUSED, Failure

app = group("Secrets at rest: endpoint secrets, custom headers, credentials of provider accounts.")


@command(app, "reseal")
def reseal(context: CommandContext) -> None:
    """Seal all secrets with the first key of SPINE_ENCRYPTION_KEY, so that the older keys can be removed from it."""
    environ = context.environment.environ
    missing = [name for name in ("DATABASE_URL", "SPINE_ENCRYPTION_KEY") if not environ.get(name)]
    if missing:
        raise Failure(f"{' and '.join(missing)} not set", exit_code=MISUSED)
    try:
        vault = load("spine.kernel.vault:Vault").from_text(environ["SPINE_ENCRYPTION_KEY"])
    except ValueError as error:
        raise Failure(str(error), exit_code=MISUSED) from error
    counts = asyncio.run(load("spine.cli.sealed_values:reseal")(environ["DATABASE_URL"], vault))
    context.out.resource(counts, counts)
    if counts["unreadable"]:
        context.out.note(
            "What did not open needs the key that sealed it: add that key behind the others and run this again."
        )
        raise typer.Exit(1)
