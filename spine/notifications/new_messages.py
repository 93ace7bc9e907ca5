"""From a plan to a message on its way into the database: its row, its timeline, its event, and what callers see of it."""

from dataclasses import dataclass
from typing import Any, Final

from spine.kernel import ids
from spine.kernel.events import Actor, NewEvent, event_body
from spine.notifications.message_models import CREATED, MessageEvent, MessageOut, Status, shown
from spine.notifications.message_plan import MessageCreate, Plan


@dataclass(frozen=True, slots=True)
class RequestOrigin:
    """Who asks for a message, where, and in which request."""

    workspace_id: str
    env: str
    actor: Actor
    request_id: str


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message that is not committed yet. `answer` is its JSON, as the caller gets it."""

    row: dict[str, Any]
    entry: dict[str, Any]
    event: NewEvent
    answer: bytes


def new_message(origin: RequestOrigin, request: MessageCreate, planned: Plan) -> NewMessage:
    """The message of this plan, with new ids."""
    id = ids.mint(ids.PREFIXES["message"])
    now = ids.created_at(id)
    scheduled = request.send_at is not None and request.send_at > now
    policy = planned.policy_row
    template = planned.template
    row: dict[str, Any] = {
        "id": id,
        "contact_id": planned.recipient.contact_id,
        "addresses": planned.addresses,
        "template_id": template["id"],
        "template": template["slug"],
        "template_version": template["version"],
        "locale": template["locale"],
        "category": template["category"],
        "dlt_category": (template["dlt"] or {}).get("category"),
        "vars": request.vars,
        "policy_id": policy["id"] if policy else None,
        "policy_slug": policy["slug"] if policy else None,
        "policy_version": policy["version"] if policy else None,
        "policy": planned.strategy,
        "warnings": planned.warnings,
        "status": Status.SCHEDULED if scheduled else Status.QUEUED,
        "send_at": request.send_at,
        "deadline_at": planned.deadline_at,
        "request_id": origin.request_id,
        "created_at": now,
        "metadata": request.metadata,
    }
    data = shown(row | _NEW | {"updated_at": now})
    event_id = ids.mint(ids.PREFIXES["event"])
    body = event_body(
        id=event_id,
        type=CREATED.name,
        at=now,
        workspace_id=origin.workspace_id,
        env=origin.env,
        request_id=origin.request_id,
        actor=origin.actor,
        sequence=1,
        data=MessageEvent.model_validate(data | {"message_id": id}).model_dump_json(by_alias=True).encode(),
    )
    answer = MessageOut.model_validate(data | {"attempts": []}).model_dump_json(by_alias=True).encode()
    return NewMessage(row, _entry(origin, request, planned, row), NewEvent(event_id, CREATED.name, body), answer)


_NEW: Final[dict[str, Any]] = {
    "version": 1, "channel": None, "provider": None, "receipt_supported": None, "delivered_at": None, "read_at": None,
    "reasons": [], "duplicate_possible": False, "late_success": False, "ended_at": None,
}  # fmt: skip
"""What nothing is known of yet."""


def _entry(origin: RequestOrigin, request: MessageCreate, planned: Plan, row: dict[str, Any]) -> dict[str, Any]:
    """The first entry of a message's timeline: which policy, and why this one."""
    policy = planned.policy_row
    if policy is None:
        why = "built_in"
    elif request.policy is not None:
        why = "named"
    else:
        why = "template" if policy["applies_to"].get("template") else "workspace"
    return {
        "id": ids.mint(ids.PREFIXES["timeline_entry"]),
        "subject_id": row["id"],
        "kind": "message.created",
        "actor": origin.actor.model_dump(),
        "detail": {
            "status": row["status"],
            "policy": {"id": row["policy_id"], "version": row["policy_version"], "why": why},
            "order": "request" if request.channels is not None else "policy",
            "channels": [step["channel"] for step in planned.strategy["steps"]],
            "template_version": row["template_version"],
        },
        "request_id": row["request_id"],
    }
