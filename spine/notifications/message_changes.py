"""The changes that one transaction makes to messages: collected in memory, written in one statement with their events."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel

from spine.kernel import ids
from spine.kernel.events import SYSTEM, Actor, EventType, event_body
from spine.kernel.metrics import duplicates_possible, messages_ended, receipt_seconds, step_wait_seconds
from spine.kernel.wakeups import Wakeups
from spine.notifications.locked_messages import Connection, LockedAttempt, LockedMessage, MessageKey
from spine.notifications.message_events import MessageEvent
from spine.notifications.message_models import message_fields

_WRITE: Final = "SELECT spine.messages_write($1, $2, $3, $4, $5, $6, $7::text[], $8::text[], $9::text[], $10::bytea[])"
_WAIT: Final = """
    UPDATE spine.sends_open o SET due_at = u.due_at, waits_for = u.account_id, leased_by = NULL
      FROM unnest($2::text[], $3::text[], $4::timestamptz[], $5::text[]) AS u (workspace_id, id, due_at, account_id)
     WHERE o.workspace_id = u.workspace_id AND o.id = u.id AND o.leased_by = $1
"""
_ATTEMPTS_COMPLETE: Final = """
    UPDATE spine.attempts a SET polled_at = u.polled_at, units = u.units, cost_micros = u.cost_micros
      FROM jsonb_populate_recordset(NULL::spine.attempts, $1) u WHERE a.workspace_id = u.workspace_id AND a.id = u.id
"""
"""Writes what few attempts have, and `messages_write` leaves as it is."""
_CONTACTS_PUT: Final = """
    INSERT INTO spine.contacts (workspace_id, id, name, phone_e164, email)
    SELECT c.workspace_id, c.id, c.name, c.phone_e164, c.email FROM jsonb_populate_recordset(NULL::spine.contacts, $1) c
"""


class MessageChanges:
    """A unit of work over locked messages. Methods collect changes; `write` writes them in the running transaction."""

    def __init__(self, now: datetime, *, actor: Actor = SYSTEM, request_id: str | None = None) -> None:
        self.now = now
        self.actor = actor
        self._request_id = request_id
        self._messages: dict[MessageKey, LockedMessage] = {}
        self._attempts: dict[str, LockedAttempt] = {}
        self._timeline: list[dict[str, Any]] = []
        self._contacts: list[dict[str, Any]] = []
        self._preferences: list[dict[str, Any]] = []
        self._queue: dict[MessageKey, datetime | None] = {}
        self.polls: list[LockedAttempt] = []
        """Attempts whose provider is to be asked after the commit what became of them."""
        self._waiting: list[tuple[str, str, datetime, str]] = []
        self._events: list[tuple[str, str, str, bytes]] = []
        self._complete: dict[str, LockedAttempt] = {}
        self._delivered: list[LockedAttempt] = []
        self._ended_waits: list[tuple[str, float]] = []

    def record_metrics(self) -> None:
        """Count the ended messages by their last status, and observe how long steps waited. Call it after the commit."""
        for key, due_at in self._queue.items():
            if due_at is None and key in self._messages:
                row = self._messages[key].row
                messages_ended(row["status"]).inc()
                if row["duplicate_possible"]:
                    duplicates_possible().inc()
        for attempt in self._delivered:
            took_s = (self.now - attempt.started_at).total_seconds()
            receipt_seconds(attempt.channel, attempt.provider).observe(max(took_s, 0.0))
        for channel, waited_s in self._ended_waits:
            step_wait_seconds(channel).observe(waited_s)

    @property
    def has_events(self) -> bool:
        """Whether there are events for the relay."""
        return bool(self._events)

    @property
    def due_times(self) -> Sequence[datetime]:
        """When the messages that are scheduled again are due."""
        return [due_at for due_at in self._queue.values() if due_at is not None]

    def mark_changed(self, message: LockedMessage, *attempts: LockedAttempt) -> None:
        """Write this message and these attempts."""
        self._messages[message.key] = message
        self._attempts.update((attempt.id, attempt) for attempt in attempts)

    def schedule(self, message: LockedMessage, due_at: datetime) -> None:
        """Make the message's queue row due at this time."""
        self._queue[message.key] = due_at

    def note_delivery(self, attempt: LockedAttempt) -> None:
        """Observe how long the first report of this attempt's delivery took."""
        self._delivered.append(attempt)

    def poll(self, message: LockedMessage, attempt: LockedAttempt, until: datetime) -> None:
        """Ask the provider of an attempt after the commit; the message is due `until` then."""
        attempt.polled_at = self.now
        self.polls.append(attempt)
        self._complete[attempt.id] = attempt
        self.mark_changed(message, attempt)
        self.schedule(message, until)

    def wait_for_account(self, message: LockedMessage, account_id: str) -> None:
        """Give the leased message back until the account may be called. It is due at its deadline."""
        self._waiting.append((*message.key, message.row["deadline_at"], account_id))

    @property
    def accounts_waited_for(self) -> Sequence[str]:
        """The accounts for which messages wait."""
        return [account_id for *_, account_id in self._waiting]

    def end(self, message: LockedMessage) -> None:
        """Delete the message's queue row and set `ended_at`."""
        self._queue[message.key] = None
        self._ended_waits += [self._wait_of(attempt) for attempt in message.attempts if attempt.left_at is None]
        if message.row["ended_at"] is None:
            message.row["ended_at"] = self.now
            self.mark_changed(message)

    def end_wait(self, message: LockedMessage, attempt: LockedAttempt) -> None:
        """Stop waiting for this attempt's receipt: set its `left_at`."""
        self._ended_waits.append(self._wait_of(attempt))
        attempt.left_at = self.now
        self.mark_changed(message, attempt)

    def _wait_of(self, attempt: LockedAttempt) -> tuple[str, float]:
        return attempt.channel, (self.now - attempt.started_at).total_seconds()

    def add_timeline_entry(
        self,
        message: LockedMessage,
        kind: str,
        detail: dict[str, Any] | None = None,
        *,
        actor: Actor | None = None,
        subject_id: str | None = None,
        changes: Sequence[dict[str, Any]] = (),
    ) -> None:
        """Add an entry to the timeline of the message, or of another subject of its workspace."""
        self._timeline.append(
            {
                "workspace_id": message.row["workspace_id"],
                "id": ids.mint(ids.PREFIXES["timeline_entry"]),
                "subject_id": subject_id or message.row["id"],
                "kind": kind,
                "actor": (actor or self.actor).model_dump(),
                "changes": list(changes),
                "detail": detail or {},
                "request_id": self._request_id or message.row["request_id"],
            }
        )

    def charge(self, attempt: LockedAttempt, units: int, cost_micros: int) -> None:
        """Note what a provider asks for an attempt."""
        attempt.units, attempt.cost_micros = units, cost_micros
        self._complete[attempt.id] = attempt

    def add_contact(self, contact: dict[str, Any]) -> None:
        """Add a contact."""
        self._contacts.append(contact)

    def add_preference(self, preference: dict[str, Any]) -> None:
        """Add a row to the history of a contact's preferences."""
        self._preferences.append(preference)

    def emit(
        self,
        message: LockedMessage,
        type: EventType,
        model: type[MessageEvent],
        actor: Actor | None = None,
        **fields: Any,
    ) -> None:
        """Add an event with the message's present state as its data, plus `fields`. Increments sequence and version."""
        row = message.row
        row["sequence"] += 1
        row["version"] += 1
        row["updated_at"] = self.now
        self.mark_changed(message)
        data = model.model_validate({**message_fields(row), "message_id": row["id"], **fields})
        self.add_event(message, type, data, row["sequence"], actor)

    def add_event(
        self, message: LockedMessage, type: EventType, data: BaseModel, sequence: int, actor: Actor | None = None
    ) -> None:
        """Add an event of the message's workspace."""
        id = ids.mint(ids.PREFIXES["event"])
        body = event_body(
            id=id,
            type=type.name,
            at=self.now,
            workspace_id=message.row["workspace_id"],
            env=message.env,
            request_id=self._request_id or message.row["request_id"],
            actor=actor or self.actor,
            sequence=sequence,
            data=data.model_dump_json(by_alias=True).encode(),
        )
        self._events.append((message.row["workspace_id"], id, type.name, body))

    async def write(self, connection: Connection, worker_id: str | None = None) -> None:
        """Write all changes in the running transaction. Does nothing if there are none."""
        if self._waiting:
            await connection.execute(_WAIT, worker_id, *([row[n] for row in self._waiting] for n in range(4)))
        if not (self._messages or self._attempts or self._timeline or self._queue or self._events):
            return
        if self._contacts:
            await connection.execute(_CONTACTS_PUT, self._contacts)
        await connection.execute(
            _WRITE,
            worker_id,
            [message.row for message in self._messages.values()],
            [attempt.to_row() for attempt in self._attempts.values()],
            self._timeline,
            self._preferences,
            [{"workspace_id": ws, "id": id, "due_at": due_at} for (ws, id), due_at in self._queue.items()],
            *([event[n] for event in self._events] for n in range(4)),
        )
        if self._complete:
            await connection.execute(_ATTEMPTS_COMPLETE, [attempt.to_row() for attempt in self._complete.values()])


def after_commit(committed: Sequence[MessageChanges], wakeups: Wakeups) -> None:
    """Record metrics of committed changes, and wake the relay and the message sender if there is work for them."""
    for changes in committed:
        changes.record_metrics()
    if any(changes.has_events for changes in committed):
        wakeups.wake("relay")
    if any(changes.due_times for changes in committed):
        wakeups.wake("send")
