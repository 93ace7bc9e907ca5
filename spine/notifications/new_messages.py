"""Build a new message from its plan: its row, first timeline entry, event and response body."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel

from spine.kernel import ids
from spine.kernel.events import Actor, EventType, NewEvent, check_data_size, event_body
from spine.notifications.message_events import CREATED, MessageEvent
from spine.notifications.message_models import MessageOut, Status, message_fields
from spine.notifications.message_plan import MessagePlan
from spine.notifications.message_request import MessageCreate

_INITIAL_FIELDS: Final[dict[str, Any]] = {
    "version": 1, "channel": None, "provider": None, "receipt_supported": None, "delivered_at": None, "read_at": None,
    "reasons": [], "duplicate_possible": False, "late_success": False, "ended_at": None,
}  # fmt: skip
"""Values of a message to which nothing has happened yet."""


@dataclass(frozen=True, slots=True)
class RequestOrigin:
    """The actor, workspace and request that a message or event comes from."""

    workspace_id: str
    env: str
    actor: Actor
    request_id: str


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message that is not committed yet. `response_body` is its JSON for the caller."""

    row: dict[str, Any]
    timeline_entry: dict[str, Any]
    event: NewEvent
    response_body: bytes


def new_message(origin: RequestOrigin, request: MessageCreate, plan: MessagePlan, max_event_bytes: int) -> NewMessage:
    """Build the planned message, with new ids. Raises TooLarge for a message that no event can tell of."""
    row = _row(origin, request, plan)
    now = row["created_at"]
    data = message_fields(row | _INITIAL_FIELDS | {"updated_at": now})
    event = new_event(
        origin, CREATED, now, MessageEvent.model_validate(data | {"message_id": row["id"]}), max_event_bytes
    )
    response_body = MessageOut.model_validate(data | {"attempts": []}).model_dump_json(by_alias=True).encode()
    return NewMessage(row, _timeline_entry(origin, request, plan, row), event, response_body)


def new_event(origin: RequestOrigin, type: EventType, at: datetime, data: BaseModel, max_event_bytes: int) -> NewEvent:
    """Build the first event about a new object (sequence 1). Raises TooLarge."""
    id = ids.mint(ids.PREFIXES["event"])
    serialised = data.model_dump_json(by_alias=True).encode()
    check_data_size(type.name, serialised, max_event_bytes)
    body = event_body(
        id=id,
        type=type.name,
        at=at,
        workspace_id=origin.workspace_id,
        env=origin.env,
        request_id=origin.request_id,
        actor=origin.actor,
        sequence=1,
        data=serialised,
    )
    return NewEvent(id, type.name, body)


def _row(origin: RequestOrigin, request: MessageCreate, plan: MessagePlan) -> dict[str, Any]:
    id = ids.mint(ids.PREFIXES["message"])
    now = ids.created_at(id)
    scheduled = request.send_at is not None and request.send_at > now
    policy, template = plan.policy_row, plan.template
    return {
        "id": id,
        "contact_id": plan.recipient.contact_id,
        "addresses": plan.addresses,
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
        "policy": plan.strategy,
        "warnings": plan.warnings,
        "status": Status.SCHEDULED if scheduled else Status.QUEUED,
        "send_at": request.send_at,
        "deadline_at": plan.deadline_at,
        "request_id": origin.request_id,
        "created_at": now,
        "metadata": request.metadata,
    }


def _timeline_entry(
    origin: RequestOrigin, request: MessageCreate, plan: MessagePlan, row: dict[str, Any]
) -> dict[str, Any]:
    """Return the first entry of the message's timeline: which policy applies, and why."""
    policy = plan.policy_row
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
            "channels": [step["channel"] for step in plan.strategy["steps"]],
            "template_version": row["template_version"],
        },
        "request_id": row["request_id"],
    }
