"""Commands for webhook endpoints: list, show, create, disable, enable, rotate-secret, test."""

from typing import Annotated, Any, Final, Literal

import orjson
import typer

from spine.cli.command import CommandContext, Count, command, group
from spine.cli.deliveries import show_delivery
from spine.cli.errors import MISUSED, Failure
from spine.cli.times import format_time, parse_duration_s, parse_time

app = group("Webhook endpoints: where events go.")
_PATH: Final = "/v1/webhook_endpoints"
_POLL_INTERVAL_S: Final = 0.5
Id = Annotated[str, typer.Argument(help="whe_…")]


def _fields(endpoint: dict[str, Any]) -> dict[str, Any]:
    reason = f"  ({endpoint['disabled_reason']})" if endpoint.get("disabled_reason") else ""
    return {
        "id": endpoint["id"],
        "url": endpoint["url"],
        "status": endpoint["status"] + reason,
        "events": endpoint["events"],
        "filter": orjson.dumps(endpoint["filter"]).decode() if endpoint["filter"] else None,
        "description": endpoint["description"],
        "headers": ", ".join(endpoint.get("headers") or {}),
        "signature": endpoint["signature"],
        "at most": f"{endpoint['max_in_flight']} in flight"
        + (f", {endpoint['rate_per_s']:g} a second" if endpoint["rate_per_s"] else ""),
        "created": format_time(endpoint["created_at"]),
        "secret": endpoint.get("secret"),
        "public key": endpoint.get("public_key"),
    }


def _show(context: CommandContext, endpoint: dict[str, Any]) -> None:
    context.out.resource(endpoint, _fields(endpoint))


@command(app, "list")
def list_(context: CommandContext, limit: Count = 25) -> None:
    """List endpoints, newest first."""
    found = context.api.first(_PATH, limit)
    rows = [(it["id"], it["status"], it["url"], it["events"], format_time(it["created_at"])) for it in found["data"]]
    context.out.listing(found, ("id", "status", "url", "events", "created"), rows, "no endpoints")


@command(app, "show")
def show(context: CommandContext, id: Id) -> None:
    """Show an endpoint."""
    _show(context, context.api.get(f"{_PATH}/{id}"))


@command(app, "create")
def create(
    context: CommandContext,
    target: Annotated[str, typer.Argument(metavar="URL", help="Where to deliver.")],
    events: Annotated[list[str] | None, typer.Option(help="Event types: exact, 'ticket.*', '*'; repeatable.")] = None,
    filter: Annotated[
        str | None, typer.Option(help='Only events whose data holds this JSON, such as {"tier": "gold"}.')
    ] = None,
    description: Annotated[str, typer.Option(help="For people.")] = "",
    header: Annotated[list[str] | None, typer.Option(help="'Name: value', sent along; repeatable.")] = None,
    rate: Annotated[float | None, typer.Option(help="At most so many calls a second.")] = None,
    max_in_flight: Annotated[int | None, typer.Option(help="At most so many calls at once.")] = None,
    signature: Annotated[Literal["v1", "v1a"], typer.Option(help="HMAC-SHA256 or ed25519.")] = "v1",
) -> None:
    """Create an endpoint; prints the secret that verifies its deliveries, once."""
    body: dict[str, Any] = {"url": target, "events": events or ["*"], "description": description}
    optional = {
        "filter": _parse_filter(filter),
        "headers": _parse_headers(header),
        "rate_per_s": rate,
        "max_in_flight": max_in_flight,
    }
    body |= {name: value for name, value in optional.items() if value} | {"signature": signature}
    _show(context, context.api.post(_PATH, body))


def _parse_filter(raw: str | None) -> dict[str, Any] | None:
    try:
        filter = None if raw is None else orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise Failure(f"--filter is not JSON: {error}", exit_code=MISUSED) from error
    if not isinstance(filter, dict | None):
        raise Failure('--filter takes a JSON object, such as {"tier": "gold"}', exit_code=MISUSED)
    return filter


def _parse_headers(lines: list[str] | None) -> dict[str, str]:
    pairs = [line.partition(":") for line in lines or []]
    if any(not colon for _, colon, _ in pairs):
        raise Failure("--header takes 'Name: value'", exit_code=MISUSED)
    return {name.strip(): value.strip() for name, _, value in pairs}


@command(app, "disable")
def disable(context: CommandContext, id: Id) -> None:
    """Disable an endpoint: its events are held, not dropped."""
    _show(context, context.api.patch(f"{_PATH}/{id}", {"status": "disabled"}))


@command(app, "enable")
def enable(
    context: CommandContext,
    id: Id,
    held: Annotated[
        str, typer.Option(help="What to deliver of what was held: all, none, or since a time (2h).")
    ] = "all",
) -> None:
    """Enable an endpoint again, and say what becomes of the events held for it."""
    body: dict[str, Any] = {"held": held}
    if held not in ("all", "none"):
        body = {"held": "since", "since": parse_time(held, context.environment.now())}
    _show(context, context.api.post(f"{_PATH}/{id}/enable", body))


@command(app, "rotate-secret")
def rotate_secret(
    context: CommandContext,
    id: Id,
    overlap: Annotated[str, typer.Option(help="How long the old secret signs beside the new: 0s to 7d.")] = "24h",
) -> None:
    """Give an endpoint a new secret; prints it, once."""
    _show(context, context.api.post(f"{_PATH}/{id}/rotate_secret", {"overlap_s": parse_duration_s(overlap)}))


@command(app, "test")
def send_test(
    context: CommandContext,
    id: Id,
    type: Annotated[str | None, typer.Option(help="The type of the event; its example is sent.")] = None,
    wait: Annotated[str, typer.Option(help="Wait so long for the first attempt.")] = "10s",
) -> None:
    """Send an endpoint a test event, and show what it answers."""
    delivery = context.api.post(f"{_PATH}/{id}/test", {"type": type} if type else {})
    remaining_s = float(parse_duration_s(wait))
    while not delivery["attempts"] and delivery["status"] == "pending" and remaining_s > 0:
        context.environment.sleep(_POLL_INTERVAL_S)
        remaining_s -= _POLL_INTERVAL_S
        delivery = context.api.get(f"/v1/deliveries/{delivery['id']}")
    show_delivery(context, delivery)
    if delivery["status"] in ("retrying", "dead"):
        raise Failure(f"the endpoint did not take it: the delivery is {delivery['status']}")
