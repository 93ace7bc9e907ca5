"""Messages in one transaction: loaded under lock, changed in memory, written in one statement with their events.

Whoever changes a message (a worker's decision or result, a receipt, a reply) locks its row first, so that a receipt and
a fallback timer that come at the same instant are taken one after the other (failure case 7).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy
from pydantic import BaseModel

from policies.fallback_values import Attempt, FailureClass, Outcome, Policy
from policies.opt_outs import OptOut
from policies.receipts import State
from spine.kernel import ids
from spine.kernel.events import SYSTEM, Actor, EventType, event_body
from spine.kernel.metrics import messages_ended, step_wait_seconds
from spine.notifications.channel_policies import policy_of
from spine.notifications.message_models import MessageEvent, shown

Key = tuple[str, str]
"""(workspace id, message id)."""
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"

MESSAGES_LOCK: Final = """
    SELECT m.* FROM unnest($1::text[], $2::text[]) AS u (workspace_id, id)
      JOIN spine.messages m ON m.workspace_id = u.workspace_id AND m.id = u.id
     ORDER BY m.workspace_id, m.id FOR UPDATE OF m
"""
ATTEMPTS_LOAD: Final = """
    SELECT a.* FROM unnest($1::text[], $2::text[]) AS u (workspace_id, id)
      JOIN spine.attempts a ON a.workspace_id = u.workspace_id AND a.message_id = u.id
     ORDER BY a.message_id, a.step, a.number
"""
SURROUNDINGS_LOAD: Final = """
    SELECT u.workspace_id, u.id, clock_timestamp() AS now, w.env, q.leased_by, q.id IS NOT NULL AS queued,
           (SELECT jsonb_agg(jsonb_build_array(p.channel, p.category, p.opted_out)) FROM (
                SELECT DISTINCT ON (channel, category) channel, category, opted_out FROM spine.preferences p
                 WHERE p.workspace_id = u.workspace_id AND p.contact_id = u.contact_id ORDER BY channel, category, id DESC) p) AS wishes
      FROM unnest($1::text[], $2::text[], $3::text[]) AS u (workspace_id, id, contact_id)
      JOIN spine.workspaces w ON w.workspace_id = u.workspace_id
      LEFT JOIN spine.sends_open q ON q.workspace_id = u.workspace_id AND q.id = u.id
"""
WRITE: Final = "SELECT spine.messages_write($1, $2, $3, $4, $5, $6, $7::text[], $8::text[], $9::text[], $10::bytea[])"


@dataclass(slots=True)
class LockedAttempt:
    """An attempt's row; the names are its columns, but for `failure`, which is `class`."""

    workspace_id: str
    id: str
    message_id: str
    step: int
    number: int
    channel: str
    provider: str
    provider_account_id: str
    receipts: bool
    started_at: datetime
    state: State = "sending"
    outcome: Outcome | None = None
    failure: FailureClass | None = None
    provider_code: str | None = None
    provider_http: int | None = None
    provider_message_id: str | None = None
    raw: dict[str, Any] | None = None
    late_success: bool = False
    ended_at: datetime | None = None
    wait_until: datetime | None = None
    retry_at: datetime | None = None
    left_at: datetime | None = None
    accepted_at: datetime | None = None
    delivered_at: datetime | None = None
    read_at: datetime | None = None
    failed_at: datetime | None = None

    @classmethod
    def read(cls, row: Any) -> "LockedAttempt":
        """From its row."""
        values = dict(row)
        return cls(failure=values.pop("class"), **values)

    def as_row(self) -> dict[str, Any]:
        """As a row."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {"class": values.pop("failure"), **values}

    def as_decided_on(self) -> Attempt:
        """As deciding takes it."""
        return Attempt(
            self.step, self.number, self.channel, self.provider_account_id, self.receipts, self.state, self.outcome,
            self.failure, self.wait_until, self.retry_at,
        )  # fmt: skip


@dataclass(slots=True)
class LockedMessage:
    """A message under lock. `row` holds its columns; `mine` says whether the loading worker has it leased."""

    row: dict[str, Any]
    policy: Policy
    env: str
    mine: bool
    queued: bool
    opt_outs: list[OptOut]
    attempts: list[LockedAttempt] = field(default_factory=list)

    @property
    def key(self) -> Key:
        """Its place."""
        return self.row["workspace_id"], self.row["id"]

    def attempt(self, id: str) -> LockedAttempt | None:
        """Its attempt with this id."""
        return next((attempt for attempt in self.attempts if attempt.id == id), None)


async def load(
    connection: Connection, keys: Iterable[Key], worker_id: str | None = None
) -> tuple[dict[Key, LockedMessage], datetime]:
    """Lock these messages and read what belongs to them, in the running transaction; answers the database's time too.

    Unknown keys are left out. What is read besides the rows is as it stands after the locks were got.
    """
    wanted = sorted(set(keys))
    rows = await connection.fetch(MESSAGES_LOCK, [ws for ws, _ in wanted], [id for _, id in wanted])
    if not rows:
        return {}, datetime.now(UTC)
    places = [row["workspace_id"] for row in rows], [row["id"] for row in rows]
    around = await connection.fetch(SURROUNDINGS_LOAD, *places, [row["contact_id"] for row in rows])
    of = {(one["workspace_id"], one["id"]): one for one in around}
    found: dict[Key, LockedMessage] = {}
    for row in rows:
        key = row["workspace_id"], row["id"]
        one = of[key]
        found[key] = LockedMessage(
            row=dict(row),
            policy=policy_of(row["policy"]),
            env=one["env"],
            mine=worker_id is not None and one["leased_by"] == worker_id,
            queued=one["queued"],
            opt_outs=[OptOut(*wish) for wish in one["wishes"] or ()],
        )
    for row in await connection.fetch(ATTEMPTS_LOAD, *places):
        found[row["workspace_id"], row["message_id"]].attempts.append(LockedAttempt.read(row))
    return found, max(one["now"] for one in around)


class MessageChanges:
    """What one transaction changes: collected here, written at once by `write`."""

    def __init__(self, now: datetime, *, actor: Actor = SYSTEM, request_id: str | None = None) -> None:
        self.now = now
        self.actor = actor
        self._request_id = request_id
        self._messages: dict[Key, LockedMessage] = {}
        self._attempts: dict[str, LockedAttempt] = {}
        self._timeline: list[dict[str, Any]] = []
        self._preferences: list[dict[str, Any]] = []
        self._queue: dict[Key, datetime | None] = {}
        self._events: list[tuple[str, str, str, bytes]] = []
        self._waited: list[tuple[str, float]] = []

    def record_metrics(self) -> None:
        """Count what has ended: messages by their last state, and how long steps were waited for. Called after the commit."""
        for key, due_at in self._queue.items():
            if due_at is None and key in self._messages:
                messages_ended(self._messages[key].row["status"]).inc()
        for channel, waited_s in self._waited:
            step_wait_seconds(channel).observe(waited_s)

    def leave(self, message: LockedMessage, attempt: LockedAttempt) -> None:
        """The step of this attempt is not waited for any longer."""
        self._waited.append(self._wait_of(attempt))
        attempt.left_at = self.now
        self.mark_changed(message, attempt)

    def _wait_of(self, attempt: LockedAttempt) -> tuple[str, float]:
        return attempt.channel, (self.now - attempt.started_at).total_seconds()

    @property
    def has_events(self) -> bool:
        """Whether there is something for the relay."""
        return bool(self._events)

    @property
    def due_times(self) -> Sequence[datetime]:
        """When the messages that go on are due."""
        return [due_at for due_at in self._queue.values() if due_at is not None]

    def mark_changed(self, message: LockedMessage, *attempts: LockedAttempt) -> None:
        """These changed."""
        self._messages[message.key] = message
        self._attempts.update((attempt.id, attempt) for attempt in attempts)

    def schedule(self, message: LockedMessage, due_at: datetime) -> None:
        """Look at the message again at this time."""
        self._queue[message.key] = due_at

    def end(self, message: LockedMessage) -> None:
        """Nothing more is to be done for the message."""
        self._queue[message.key] = None
        self._waited += [self._wait_of(attempt) for attempt in message.attempts if attempt.left_at is None]
        if message.row["ended_at"] is None:
            message.row["ended_at"] = self.now
            self.mark_changed(message)

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
        """Add to the message's timeline, or to another subject's."""
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

    def add_preference(self, preference: dict[str, Any]) -> None:
        """Add to the history of somebody's wishes."""
        self._preferences.append(preference)

    def emit(
        self,
        message: LockedMessage,
        type: EventType,
        model: type[MessageEvent],
        actor: Actor | None = None,
        **more: Any,
    ) -> None:
        """Tell of the message as it stands now."""
        row = message.row
        row["sequence"] += 1
        row["version"] += 1
        row["updated_at"] = self.now
        self.mark_changed(message)
        data = model.model_validate({**shown(row), "message_id": row["id"], **more})
        self.publish(message, type, data, row["sequence"], actor)

    def publish(
        self, message: LockedMessage, type: EventType, data: BaseModel, sequence: int, actor: Actor | None = None
    ) -> None:
        """Put an event of the message's workspace into this transaction."""
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
        """Write all of it in the running transaction."""
        if not (self._messages or self._attempts or self._timeline or self._queue or self._events):
            return
        await connection.execute(
            WRITE,
            worker_id,
            [message.row for message in self._messages.values()],
            [attempt.as_row() for attempt in self._attempts.values()],
            self._timeline,
            self._preferences,
            [{"workspace_id": ws, "id": id, "due_at": due_at} for (ws, id), due_at in self._queue.items()],
            *([event[n] for event in self._events] for n in range(4)),
        )
