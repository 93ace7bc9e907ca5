"""Event types, declared once each, and the event body that is signed and sent."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Literal

import orjson
from pydantic import BaseModel

from spine.kernel.errors import TooLarge

API_VERSION = "2026-11-01"


class Actor(BaseModel):
    """Who did it."""

    type: Literal["api_key", "system", "provider", "contact"]
    id: str


SYSTEM = Actor(type="system", id="spine")


@dataclass(frozen=True, slots=True)
class EventType:
    """A type of event: its dotted name, the model of its `data`, and one sentence that says when it is emitted."""

    name: str
    data: type[BaseModel]
    text: str
    version: int = 1


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event that the transaction inserts. `body` is the exact text that is signed."""

    id: str
    type: str
    body: bytes


def timestamp(at: datetime) -> str:
    """Return the time as RFC 3339 in UTC, to the millisecond."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def check_data_size(type: str, data: bytes, max_bytes: int, param: str | None = None) -> None:
    """Raise TooLarge `event_too_large` for an event's data of more bytes than SPINE_MAX_EVENT_BYTES.

    Every request that writes an event checks it, whoever made the data: workers have room for events of this size. What
    workers write themselves tells of objects that were checked when they were made.
    """
    if len(data) > max_bytes:
        raise TooLarge(
            f"an event's data may have {max_bytes} bytes; that of {type} has {len(data)}",
            code="event_too_large",
            param=param,
        )


def event_body(
    *,
    id: str,
    type: str,
    at: datetime,
    workspace_id: str,
    env: str,
    request_id: str,
    actor: Actor,
    sequence: int,
    data: bytes,
) -> bytes:
    """Return the body of an event (webhooks.md, "On the wire"), which is serialised only here. `data` is JSON text."""
    return orjson.dumps(
        {
            "id": id,
            "type": type,
            "timestamp": timestamp(at),
            "workspace_id": workspace_id,
            "env": env,
            "api_version": API_VERSION,
            "request_id": request_id,
            "actor": {"type": actor.type, "id": actor.id},
            "sequence": sequence,
            "data": orjson.Fragment(data),
        }
    )


class Catalogue:
    """All event types that Spine itself emits, and their consumers. Raises ValueError if a type is declared twice.

    `consumers`: the kinds of the jobs that follow an event, by its type (`spine.kernel.jobs`).
    """

    def __init__(
        self, types: Iterable[EventType], consumers: Mapping[str, Sequence[str]] = MappingProxyType({})
    ) -> None:
        self.consumers = consumers
        self.types: dict[str, EventType] = {}
        for type in types:
            if type.name in self.types:
                raise ValueError(f"event type {type.name} is declared twice")
            self.types[type.name] = type
        self.families = frozenset(name.partition(".")[0] for name in self.types)

    def is_reserved(self, name: str) -> bool:
        """True if the name is in a family of Spine's own types, so that callers may not use it for their events."""
        return name.partition(".")[0] in self.families
