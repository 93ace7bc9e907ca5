"""Commands for API keys: create (over the API or in the database), list, roll, revoke."""

from typing import Annotated, Any, Final

import typer

from spine.cli.command import CommandContext, Count, command, group
from spine.cli.errors import MISUSED, Failure
from spine.cli.organisation_commands import in_database
from spine.cli.times import format_time, parse_duration_s

app = group("API keys of a workspace, and new organisations with their first ones.")
_PATH: Final = "/v1/api_keys"


@command(app, "create")
def create(
    context: CommandContext,
    name: Annotated[str, typer.Option(help="What the key is for.")] = "made by spine keys create",
    scopes: Annotated[str, typer.Option(help="Comma-separated: *, webhooks:read, events:* …")] = "*",
    org: Annotated[str | None, typer.Option(help="Found an organisation of this name; needs DATABASE_URL.")] = None,
    email: Annotated[str | None, typer.Option(help="The organisation's address.")] = None,
    workspace: Annotated[
        str | None, typer.Option(help="Make a key for this workspace (wsp_…) in the database; needs DATABASE_URL.")
    ] = None,
) -> None:
    """Make a key: over the API with a key at hand, or in the database for a workspace or a new organisation."""
    wanted = [scope.strip() for scope in scopes.split(",") if scope.strip()]
    if org is not None:
        if not email or workspace:
            raise Failure("--org goes with --email, and not with --workspace", exit_code=MISUSED)
        created = in_database(context, "create_organisation_and_keys", org, email, name, wanted)
        fields = {"organisation": f"{created['organisation']['id']}  {org}"}
        for env in ("test", "live"):
            fields |= {f"{env} workspace": created[env]["workspace_id"], f"{env} key": created[env]["api_key"]}
        context.out.resource(created, fields)
    elif workspace is not None:
        _show_new(context, in_database(context, "create_workspace_key", workspace, name, wanted))
    else:
        _show_new(context, context.api.post(_PATH, {"name": name, "scopes": wanted}))
    context.out.note("A key is shown once: keep it now.")


def _show_new(context: CommandContext, key: dict[str, Any]) -> None:
    context.out.resource(key, {"id": key["id"], "key": key["api_key"], "name": key["name"], "scopes": key["scopes"]})


@command(app, "list")
def list_(context: CommandContext, limit: Count = 25) -> None:
    """List keys, newest first."""
    found = context.api.first(_PATH, limit)
    rows = [
        (
            *(key["id"], key["name"], f"{key['prefix']}…{key['last4']}", key["scopes"], key["status"]),
            format_time(key["last_used_at"]),
            format_time(key["expires_at"]),
        )
        for key in found["data"]
    ]
    context.out.listing(found, ("id", "name", "key", "scopes", "status", "last used", "expires"), rows, "no keys")


@command(app, "roll")
def roll(
    context: CommandContext,
    id: Annotated[str, typer.Argument(help="key_…")],
    overlap: Annotated[str, typer.Option(help="How long the old key still opens: 0s to 7d.")] = "24h",
) -> None:
    """Replace a key by a new one; both open until the overlap ends."""
    _show_new(context, context.api.post(f"{_PATH}/{id}/roll", {"overlap_s": parse_duration_s(overlap)}))
    context.out.note("A key is shown once: keep it now.")


@command(app, "revoke")
def revoke(context: CommandContext, id: Annotated[str, typer.Argument(help="key_…")]) -> None:
    """Revoke a key: it opens nothing any more, from now on."""
    key = context.api.post(f"{_PATH}/{id}/revoke")
    context.out.resource(key, {"id": key["id"], "name": key["name"], "status": key["status"]})
