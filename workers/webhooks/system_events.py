"""The events that workers emit. Each is written in the transaction of the change that it reports."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from pydantic import BaseModel

from spine.kernel import ids
from spine.kernel.events import SYSTEM, EventType, event_body
from spine.webhooks import queries
from spine.webhooks.dead_letters import DEAD_LETTERED, DeadLettered
from spine.webhooks.endpoint_models import DISABLED, EndpointData
from spine.webhooks.replays import COMPLETED, ReplayOut
from workers.connection import Connection

_SILENT_REASONS = frozenset({"endpoint_deleted"})  # the owner deleted the endpoint and knows it


@dataclass(frozen=True, slots=True)
class SystemEvent:
    """An event to write. The endpoint `not_endpoint_id` does not get it."""

    type: EventType
    workspace_id: str
    data: BaseModel
    sequence: int = 1
    not_endpoint_id: str | None = None


def dead_letter_event(row: Any, body: bytes) -> SystemEvent | None:
    """Make the event of a dead letter from its closed row and the body of its event (empty if that is gone).

    Returns None if the reason emits no event. If a delivery of a dead letter event dies, that emits one more event, but
    the death of a delivery of that one does not: two dead endpoints would cause events without end.
    """
    if row["reason"] in _SILENT_REASONS or _ends_the_chain(row["type"], body):
        return None
    series = [attempt for attempt in row["attempts"] if attempt["series"] == row["series"]]
    last = series[-1] if series else {}
    data = DeadLettered(
        delivery_id=row["id"],
        event_id=row["event_id"],
        event_type=row["type"],
        endpoint_id=row["endpoint_id"],
        attempts=len(series),
        last_status_code=last.get("status_code"),
        last_error=last.get("error"),
        reason=row["reason"],
        died_at=row["closed_at"],
    )
    return SystemEvent(DEAD_LETTERED, row["workspace_id"], data, not_endpoint_id=row["endpoint_id"])


def _ends_the_chain(type: str, body: bytes) -> bool:
    """Whether the event reports the dead letter of a dead letter event, or may do so because its body is gone."""
    if type != DEAD_LETTERED.name:
        return False
    return not body or orjson.loads(body)["data"]["event_type"] == DEAD_LETTERED.name


def endpoint_disabled_event(row: Any) -> SystemEvent:
    """Make the event of a disabled endpoint from its row."""
    return SystemEvent(
        DISABLED, row["workspace_id"], EndpointData.model_validate(_values(row)), sequence=row["version"]
    )


def replay_completed_event(row: Any) -> SystemEvent:
    """Make the event of a completed replay from its row."""
    return SystemEvent(COMPLETED, row["workspace_id"], ReplayOut.model_validate(_values(row)), sequence=row["version"])


def _values(row: Any) -> dict[str, Any]:
    values = dict(row)
    return values | {"meta": values.pop("metadata")}


async def write_system_events(connection: Connection, events: Iterable[SystemEvent]) -> None:
    """Write the events and their outbox rows in the current transaction. After the commit, send a `relay` wakeup."""
    new_events = list(events)
    if not new_events:
        return
    envs = await connection.fetch(queries.WORKSPACES_ENV, sorted({event.workspace_id for event in new_events}))
    env_of = {row["workspace_id"]: row["env"] for row in envs}
    rows = [_event_row(event, env_of[event.workspace_id]) for event in new_events]
    await connection.execute(queries.EVENTS_PUT, *_columns(rows, 5))


def _event_row(event: SystemEvent, env: str) -> tuple[str, str, str, bytes, str | None]:
    id = ids.mint(ids.PREFIXES["event"])
    body = event_body(
        id=id,
        type=event.type.name,
        at=datetime.now(UTC),
        workspace_id=event.workspace_id,
        env=env,
        request_id=ids.mint(ids.PREFIXES["request"]),
        actor=SYSTEM,
        sequence=event.sequence,
        data=event.data.model_dump_json().encode(),
    )
    return event.workspace_id, id, event.type.name, body, event.not_endpoint_id


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    return [[row[n] for row in rows] for n in range(width)]
