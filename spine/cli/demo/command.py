"""`spine demo` plays one story through all products, prints each step with its ids, and ends with the verified webhooks."""

from collections import Counter
from contextlib import ExitStack
from typing import Any, Final

import httpx

from spine.cli.command import CommandContext
from spine.cli.demo.agent import Agent
from spine.cli.demo.receiver import WebhookReceiver
from spine.cli.demo.scene import set_scene
from spine.cli.demo.story import Story
from spine.cli.errors import MISUSED, Failure

EXPECTED: Final = (
    "call_session.opened", "call.finalized", "lead.created", "lead.stage_changed", "deal.created", "deal.won", "project.created",
    "task.completed", "milestone.reached", "invoice.drafted", "appointment.created", "appointment.booked", "ticket.created",
    "ticket.assigned", "ticket.replied", "ticket.resolved", "appointment.reminder_sent", "message.created", "message.sent",
    "message.delivered", "message.replied",
)  # fmt: skip
"""Events that the story causes, as their subscriber receives them."""
_WAIT_S: Final = 30.0


def play_demo(context: CommandContext) -> None:
    """Play the story in the workspace of the key. Raises Failure where a step or a webhook is missing."""
    if context.api.key.startswith("sk_live_"):
        raise Failure("the demo moves the clock and sends to the sandbox: give a test key", exit_code=MISUSED)
    steps: list[dict[str, Any]] = []

    def tell(door: str, text: str, ids: dict[str, Any]) -> None:
        steps.append({"step": len(steps) + 1, "door": door, "text": text, **ids})
        if not context.out.as_json:
            context.out.text(f"{len(steps):>2}. {door:<6} {text}")
            context.out.text("           " + "  ".join(f"{name}: {value}" for name, value in ids.items()), "dim")

    with ExitStack() as resources:
        receiver = WebhookReceiver()
        receiver.start()
        resources.callback(receiver.close)
        endpoint = context.api.post(
            "/v1/webhook_endpoints", {"url": receiver.url, "events": ["*"], "description": "spine demo"}
        )
        resources.callback(lambda: context.api.delete(f"/v1/webhook_endpoints/{endpoint['id']}"))
        receiver.trust(endpoint["secret"])
        browser = resources.enter_context(httpx.Client(timeout=30, trust_env=False))
        scene = set_scene(context.api, context.environment.now())
        Story(context.api, Agent(context.api.url, context.api.key), browser, scene, tell).play()
        missing = receiver.wait_for(EXPECTED, _WAIT_S)
        _report(context, receiver, steps)
    if missing:
        raise Failure(f"no webhook of these types arrived: {', '.join(sorted(missing))}")


def _report(context: CommandContext, receiver: WebhookReceiver, steps: list[dict[str, Any]]) -> None:
    counts = Counter(event["type"] for event in receiver.events)
    if context.out.as_json:
        context.out.document({"steps": steps, "webhooks": dict(sorted(counts.items())), "refused": receiver.refused})
        return
    context.out.text(
        f"\n{len(receiver.events)} webhooks of {len(counts)} types arrived, each verified with `standardwebhooks`:"
    )
    for type, count in sorted(counts.items()):
        context.out.text(f"  {count:>3}  {type}", "green")
