"""Commands for deliveries: list, show, replay."""

from enum import StrEnum
from typing import Annotated, Any, Final

import typer

from spine.cli.attempt_list import format_attempts
from spine.cli.command import CommandContext, Count, Endpoint, command, group
from spine.cli.times import format_time

app = group("Deliveries: events on their way to endpoints, attempt by attempt.")
_PATH: Final = "/v1/deliveries"
Id = Annotated[str, typer.Argument(help="dlv_…")]


class Status(StrEnum):
    """States of a delivery."""

    PENDING = "pending"
    RETRYING = "retrying"
    DELIVERED = "delivered"
    DEAD = "dead"
    HELD = "held"


def show_delivery(context: CommandContext, delivery: dict[str, Any]) -> None:
    """Print a delivery and its attempts in the order of time."""
    fields = {
        "delivery": delivery["id"],
        "event": f"{delivery['event_type']}  {delivery['event_id']}",
        "endpoint": delivery["endpoint_id"],
        "status": delivery["status"] + (f"  ({delivery['reason']})" if delivery["reason"] else ""),
        "created": format_time(delivery["created_at"]),
        "closed": format_time(delivery["closed_at"]),
        "next attempt": format_time(delivery["next_attempt_at"]),
        "replay": delivery["replay_id"],
    }
    context.out.resource(delivery, fields)
    if not context.out.as_json:
        for line, style in format_attempts(delivery["attempts"]):
            context.out.text(line, style)


@command(app, "list")
def list_(
    context: CommandContext,
    endpoint: Endpoint = None,
    event: Annotated[str | None, typer.Option(help="Only this event: evt_….")] = None,
    status: Annotated[Status | None, typer.Option(help="Only these.")] = None,
    limit: Count = 25,
) -> None:
    """List deliveries, newest first."""
    found = context.api.first(_PATH, limit, endpoint_id=endpoint, event_id=event, status=status and status.value)
    rows = [
        (
            *(it[name] for name in ("id", "status", "event_type", "endpoint_id")),
            len(it["attempts"]),
            _last_response(it["attempts"]),
            format_time(it["created_at"]),
            format_time(it["next_attempt_at"]),
        )
        for it in found["data"]
    ]
    columns = ("id", "status", "event type", "endpoint", "attempts", "last answer", "created", "next attempt")
    context.out.listing(found, columns, rows, "no deliveries")


def _last_response(attempts: list[dict[str, Any]]) -> str:
    return str(attempts[-1]["status_code"] or attempts[-1]["error"]) if attempts else ""


@command(app, "show")
def show(context: CommandContext, id: Id) -> None:
    """Show a delivery, its attempts as a timeline."""
    show_delivery(context, context.api.get(f"{_PATH}/{id}"))


@command(app, "replay")
def replay(context: CommandContext, id: Id) -> None:
    """Deliver once more: the same id, the same bytes, a new series of attempts."""
    show_delivery(context, context.api.post(f"{_PATH}/{id}/replay"))
