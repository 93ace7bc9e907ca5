"""Load messages under a row lock, with their attempts and with what a decision on them needs.

Every transaction that changes a message (a worker's decision or result, a receipt, a reply) locks the message's row
first. So a receipt and a fallback timer that come at the same instant are handled one after the other (failure case 7).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from policies.fallback_values import Attempt, FailureClass, Outcome, Policy
from policies.opt_outs import OptOut
from policies.receipts import State
from spine.notifications.channel_policies import parse_policy
from spine.notifications.provider_kinds import PROVIDER_KINDS

MessageKey = tuple[str, str]
"""(workspace id, message id)."""
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"

_MESSAGES_LOCK: Final = """
    SELECT m.* FROM unnest($1::text[], $2::text[]) AS u (workspace_id, id)
      JOIN spine.messages m ON m.workspace_id = u.workspace_id AND m.id = u.id
     ORDER BY m.workspace_id, m.id FOR UPDATE OF m
"""
_ATTEMPTS_LOAD: Final = """
    SELECT a.* FROM unnest($1::text[], $2::text[]) AS u (workspace_id, id)
      JOIN spine.attempts a ON a.workspace_id = u.workspace_id AND a.message_id = u.id
     ORDER BY a.message_id, a.step, a.number
"""
_CONTEXT_LOAD: Final = """
    SELECT u.workspace_id, u.id, clock_timestamp() AS now, w.env, q.leased_by, q.id IS NOT NULL AS queued, c.contact_id,
           (SELECT jsonb_agg(jsonb_build_array(p.channel, p.category, p.opted_out)) FROM (
                SELECT DISTINCT ON (channel, category) channel, category, opted_out FROM spine.preferences p
                 WHERE p.workspace_id = u.workspace_id AND p.contact_id = c.contact_id ORDER BY channel, category, id DESC) p) AS opt_outs
      FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[]) AS u (workspace_id, id, contact_id, phone, email)
     CROSS JOIN LATERAL (SELECT coalesce(
           u.contact_id,
           (SELECT k.id FROM spine.contacts k WHERE k.workspace_id = u.workspace_id AND k.phone_e164 = u.phone),
           (SELECT k.id FROM spine.contacts k WHERE k.workspace_id = u.workspace_id AND k.email = u.email)) AS contact_id) c
      JOIN spine.workspaces w ON w.workspace_id = u.workspace_id
      LEFT JOIN spine.sends_open q ON q.workspace_id = u.workspace_id AND q.id = u.id
"""


@dataclass(slots=True)
class LockedAttempt:
    """The row of an attempt. The fields have the names of the columns, except `failure`: its column is `class`."""

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
    recipient: str | None = None
    polled_at: datetime | None = None
    units: int | None = None
    cost_micros: int | None = None
    ended_at: datetime | None = None
    wait_until: datetime | None = None
    retry_at: datetime | None = None
    left_at: datetime | None = None
    accepted_at: datetime | None = None
    delivered_at: datetime | None = None
    read_at: datetime | None = None
    failed_at: datetime | None = None

    @classmethod
    def from_row(cls, row: Any) -> "LockedAttempt":
        """Build the attempt from a row of `spine.attempts`."""
        values = dict(row)
        return cls(failure=values.pop("class"), **values)

    def to_row(self) -> dict[str, Any]:
        """Return the values by column."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {"class": values.pop("failure"), **values}

    @property
    def may_poll(self) -> bool:
        """Whether its provider can be asked what became of it, and has not been asked."""
        polls = PROVIDER_KINDS[self.provider].polls
        return polls and self.provider_message_id is not None and self.polled_at is None

    def to_policy_attempt(self) -> Attempt:
        """Return the attempt as the fallback policy takes it."""
        return Attempt(
            self.step, self.number, self.channel, self.provider_account_id, self.receipts, self.state, self.outcome,
            self.failure, self.wait_until, self.retry_at, self.may_poll,
        )  # fmt: skip


@dataclass(slots=True)
class Person:
    """Whom a message went to: the id of its contact, else of the one that has its address now. None: there is none yet.

    Messages to one address share it, so that they add one contact where they add one.
    """

    id: str | None


@dataclass(slots=True)
class LockedMessage:
    """A message under lock. `row` holds its columns. `leased`: the loading worker holds the lease on its queue row."""

    row: dict[str, Any]
    policy: Policy
    env: str
    leased: bool
    queued: bool
    opt_outs: list[OptOut]
    person: Person
    attempts: list[LockedAttempt] = field(default_factory=list)

    @property
    def key(self) -> MessageKey:
        """The message's key."""
        return self.row["workspace_id"], self.row["id"]

    def find_attempt(self, id: str) -> LockedAttempt | None:
        """Return the attempt with this id, or None."""
        return next((attempt for attempt in self.attempts if attempt.id == id), None)


async def lock_messages(
    connection: Connection, keys: Iterable[MessageKey], worker_id: str | None = None
) -> tuple[dict[MessageKey, LockedMessage], datetime]:
    """Lock these messages in the running transaction and load them. Returns them with the database's time.

    Unknown keys are left out. Attempts, opt-outs and queue rows are read after the locks are held.
    """
    wanted = sorted(set(keys))
    rows = await connection.fetch(_MESSAGES_LOCK, [ws for ws, _ in wanted], [id for _, id in wanted])
    if not rows:
        return {}, datetime.now(UTC)
    columns = [row["workspace_id"] for row in rows], [row["id"] for row in rows]
    context_rows = await connection.fetch(
        _CONTEXT_LOAD,
        *columns,
        [row["contact_id"] for row in rows],
        [row["addresses"].get("sms") or row["addresses"].get("whatsapp") for row in rows],
        [row["addresses"].get("email") for row in rows],
    )
    contexts = {(context["workspace_id"], context["id"]): context for context in context_rows}
    messages: dict[MessageKey, LockedMessage] = {}
    persons: dict[tuple[str, str], Person] = {}
    for row in rows:
        key = row["workspace_id"], row["id"]
        context = contexts[key]
        known = context["contact_id"]
        names = [(key[0], name) for name in ([known] if known is not None else row["addresses"].values())]
        person = next((persons[name] for name in names if name in persons), Person(known))
        persons |= dict.fromkeys(names, person)
        messages[key] = LockedMessage(
            row=dict(row),
            policy=parse_policy(row["policy"]),
            env=context["env"],
            leased=worker_id is not None and context["leased_by"] == worker_id,
            queued=context["queued"],
            opt_outs=[OptOut(*values) for values in context["opt_outs"] or ()],
            person=person,
        )
    for row in await connection.fetch(_ATTEMPTS_LOAD, *columns):
        messages[row["workspace_id"], row["message_id"]].attempts.append(LockedAttempt.from_row(row))
    return messages, max(context["now"] for context in context_rows)
