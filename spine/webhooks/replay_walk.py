"""The walk of a replay over deliveries or events: the next window after its place, for counting and for starting.

The API counts the first windows of a new replay with it; the workers do the rest.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson

from spine.webhooks.dead_letters import DEAD_LETTERED
from spine.webhooks.filters import STEPS_OF_A_BATCH, Json, Payload, read
from spine.webhooks.patterns import split_patterns
from spine.webhooks.replay_queries import MISSING_FIND, closed_count

WINDOW: Final = 2000
"""Rows that one statement looks at."""
_BATCH_WITH_BODIES: Final = 100
"""Missing events of one statement that reads their payloads, which may be large."""

Fetch = Callable[..., Awaitable[Any]]
"""Runs a statement with its arguments and returns its rows."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What a window holds. `position` is None if no window follows it."""

    matched: int
    position: str | None


@dataclass(frozen=True, slots=True)
class MissingEvents:
    """Events of a window that an endpoint lacks, and the place behind those that were compared."""

    events: list[Any]
    position: str | None


def closed_arguments(
    workspace_id: str, filter: Json, position: str, before: datetime, window: int = WINDOW
) -> tuple[Any, ...]:
    """Return the arguments of the statements on closed deliveries, `$1` to `$10`."""
    exact, prefixes = split_patterns(filter.get("types")) or (None, None)
    return (
        workspace_id, position, window, exact, prefixes, parse_time(filter.get("since")), parse_time(filter.get("until")),
        filter.get("endpoint_id"), filter.get("status", "dead"), before,
    )  # fmt: skip


async def count_closed(
    fetch: Fetch, workspace_id: str, filter: Json, position: str, before: datetime, window: int = WINDOW
) -> Counted:
    """Count the closed deliveries of the next window that match."""
    query = closed_count(filter.get("status", "dead"), filter.get("endpoint_id"))
    (row,) = await fetch(query, *closed_arguments(workspace_id, filter, position, before, window))
    return Counted(row["matched"], row["position"] if row["read"] == window else None)


async def find_missing(
    fetch: Fetch, workspace_id: str, filter: Json, position: str, before: datetime, limit: int, window: int = WINDOW
) -> MissingEvents:
    """Find up to `limit` events of the next window that the endpoint of the filter lacks and should get."""
    exact, prefixes = split_patterns(filter.get("types")) or (None, None)
    endpoint_id, data = filter["endpoint_id"], filter.get("data")
    most = min(limit, _BATCH_WITH_BODIES) if data else limit
    rows = await fetch(
        MISSING_FIND, workspace_id, position, window, exact, prefixes, parse_time(filter["since"]), before, endpoint_id,
        most, bool(data),
    )  # fmt: skip
    found = [row for row in rows if row["id"] is not None]
    compared, events = _select(found, endpoint_id, data)
    if compared < len(found) or len(found) == most:
        return MissingEvents(events, found[compared - 1]["id"])
    return MissingEvents(events, rows[0]["last_id"] if rows[0]["read"] == window else None)


def _select(found: list[Any], endpoint_id: str, data: Json | None) -> tuple[int, list[Any]]:
    """Select the events that the endpoint should get. Returns how many were compared before filters cost too much, and those."""
    selected: list[Any] = []
    filter_steps = 0
    for compared, event in enumerate(found):
        if filter_steps > STEPS_OF_A_BATCH:
            return compared, selected
        if event["type"] == DEAD_LETTERED.name and _is_about(event["body"], endpoint_id):
            continue
        payload = Payload(event["body"])
        sent_if = read(event["sent_if"])
        if (not data or payload.meets(data)) and not (sent_if and payload.meets(sent_if)):
            selected.append(event)
        filter_steps += payload.spent
    return len(found), selected


def _is_about(body: bytes, endpoint_id: str) -> bool:
    """Whether the event reports a dead letter of the endpoint itself. The endpoint never gets such an event."""
    return bool(orjson.loads(body)["data"]["endpoint_id"] == endpoint_id)


def parse_time(text: str | None) -> datetime | None:
    """Return a time of a stored filter."""
    return None if text is None else datetime.fromisoformat(text)
