"""Receive provider reports (receipts and replies): store each once, match its attempt, apply it under the message's lock.

A report whose attempt is not known yet is parked. The workers match a parked report again for one day, at growing
intervals, and then delete it. A provider never gets a 404 for an unknown message (failure case 2).
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import orjson

from spine.kernel import ids
from spine.kernel.events import Actor
from spine.notifications.locked_messages import Connection, MessageKey, lock_messages
from spine.notifications.message_changes import MessageChanges
from spine.notifications.provider_calls import ProviderReport
from spine.notifications.state_machine.receipts import REPLIED, apply_report

_MATCH: Final = """
      LEFT JOIN spine.attempts a
        ON a.workspace_id = u.workspace_id AND a.id = u.attempt_named AND a.provider_account_id = u.provider_account_id
      LEFT JOIN LATERAL (
               SELECT o.id, o.message_id FROM spine.attempts o
                WHERE a.id IS NULL AND o.workspace_id = u.workspace_id AND o.provider_account_id = u.provider_account_id
                  AND o.provider_message_id = u.provider_message_id LIMIT 1
           ) b ON true
      LEFT JOIN LATERAL (
               SELECT o.id, o.message_id FROM spine.attempts o
                WHERE a.id IS NULL AND b.id IS NULL AND o.workspace_id = u.workspace_id
                  AND o.provider_account_id = u.provider_account_id AND o.provider_message_id = u.raw ->> 'in_reply_to' LIMIT 1
           ) c ON true
      LEFT JOIN LATERAL (
               SELECT o.id, o.message_id FROM spine.attempts o
                WHERE a.id IS NULL AND b.id IS NULL AND c.id IS NULL AND o.workspace_id = u.workspace_id
                  AND o.provider_account_id = u.provider_account_id AND o.recipient = u.raw ->> 'sender'
                  AND o.outcome IS DISTINCT FROM 'rejected' ORDER BY o.id DESC LIMIT 1
           ) d ON true
"""
"""The attempt of a report: named by it, with its provider's id, replied to, or the newest one to the person who wrote."""

_ATTEMPT: Final = (
    "coalesce(a.id, b.id, c.id, d.id) AS attempt_id, "
    "coalesce(a.message_id, b.message_id, c.message_id, d.message_id) AS message_id"
)
_RECEIPTS_PUT: Final = f"""
    WITH u AS (
        SELECT * FROM jsonb_to_recordset($1) AS u (n int, workspace_id text, id text, provider_account_id text, attempt_named text,
                                                   provider_message_id text, status text, reported_at text, raw jsonb)
    ), matched AS (
        SELECT u.*, {_ATTEMPT} FROM u {_MATCH}
    ), put AS (
        INSERT INTO spine.receipts
            (workspace_id, id, provider_account_id, attempt_id, provider_message_id, status, reported_at, attempt_named, raw)
        SELECT workspace_id, id, provider_account_id, attempt_id, provider_message_id, status, reported_at, attempt_named, raw
          FROM matched ORDER BY workspace_id, provider_account_id, provider_message_id, status, reported_at, n
        ON CONFLICT DO NOTHING RETURNING workspace_id, id
    )
    SELECT m.n, m.attempt_id, m.message_id FROM put JOIN matched m USING (workspace_id, id) ORDER BY m.n
"""  # noqa: S608  # _MATCH is a constant
"""Stores the new receipts and returns the attempt of each. A receipt that is stored already returns no row."""

_PARKED_MATCH: Final = f"""
    WITH due AS MATERIALIZED (
        SELECT r.ctid, r.received_at <= now() - $3::interval AS expired FROM spine.receipts r
         WHERE r.attempt_id IS NULL AND r.look_at <= now() ORDER BY r.look_at LIMIT $1 FOR UPDATE SKIP LOCKED
    ), looked AS MATERIALIZED (
        SELECT u.ctid, u.workspace_id, u.id, {_ATTEMPT},
               u.provider_account_id, u.provider_message_id, u.status, u.reported_at, u.raw, u.received_at, due.expired
          FROM due JOIN spine.receipts u ON u.ctid = due.ctid {_MATCH}
    ), matched AS (
        UPDATE spine.receipts r SET attempt_id = l.attempt_id FROM looked l WHERE r.ctid = l.ctid AND l.attempt_id IS NOT NULL
    ), unmatched AS (
        UPDATE spine.receipts r SET look_at = now() + greatest(now() - r.received_at, $2::interval)
          FROM looked l WHERE r.ctid = l.ctid AND l.attempt_id IS NULL AND NOT l.expired
    ), deleted AS (
        DELETE FROM spine.receipts r USING looked l WHERE r.ctid = l.ctid AND l.attempt_id IS NULL AND l.expired
    )
    SELECT workspace_id, id, attempt_id, message_id, provider_account_id, provider_message_id, status, reported_at, raw
      FROM looked ORDER BY received_at, id
"""  # noqa: S608  # _MATCH is a constant
"""Looks at parked receipts that are due. One without an attempt is looked at again when it is twice as old, and deleted
after `$3`."""

_KEPT: Final = ("text", "code", "failure", "in_reply_to", "sender", "wish", "opt_out", "new_address")
"""Fields of a report that are stored in `raw`, for the time that it is parked."""
PARKED_LOOK: Final = timedelta(seconds=5)
"""The shortest time between two looks at a parked receipt."""
PARKED_KEEP: Final = timedelta(days=1)
"""How long a receipt stays parked (notifications.md, failure case 2)."""


@dataclass(frozen=True, slots=True)
class ReceivedReport:
    """A report, and the account whose signature it carries."""

    workspace_id: str
    account_id: str
    report: ProviderReport


async def receive_reports(
    connection: Connection, received: Sequence[ReceivedReport], request_id: str | None = None
) -> list[MessageChanges]:
    """Store and apply reports, in their order, in the running transaction. Returns the changes that were written."""
    if not received:
        return []
    rows = [
        {
            "n": n,
            "workspace_id": one.workspace_id,
            "id": ids.mint(ids.PREFIXES["receipt"]),
            "provider_account_id": one.account_id,
            "attempt_named": one.report.attempt_id,
            "provider_message_id": one.report.provider_message_id,
            "status": one.report.status,
            # A reply is told from its repetitions by the provider's id alone.
            "reported_at": "" if one.report.status == REPLIED else one.report.reported_at,
            "raw": {**one.report.raw, **{name: getattr(one.report, name) for name in _KEPT}},
        }
        for n, one in enumerate(received)
    ]
    new = await connection.fetch(_RECEIPTS_PUT, rows)
    known = [(received[row["n"]], row["message_id"], row["attempt_id"]) for row in new if row["attempt_id"] is not None]
    return await _apply(connection, known, request_id)


async def apply_parked_reports(connection: Connection, limit: int) -> tuple[list[MessageChanges], int]:
    """Apply parked reports whose attempt is known by now, in the running transaction.

    Returns the changes written, and the number of reports looked at, `limit` at most.
    """
    rows = await connection.fetch(_PARKED_MATCH, limit, PARKED_LOOK, PARKED_KEEP)
    known = [
        (_parked_report(row), row["message_id"], row["attempt_id"]) for row in rows if row["attempt_id"] is not None
    ]
    return await _apply(connection, known, None), len(rows)


def _parked_report(row: Any) -> ReceivedReport:
    raw = row["raw"] if isinstance(row["raw"], dict) else orjson.loads(row["raw"])
    kept = {name: raw.pop(name, None) for name in _KEPT}
    report = ProviderReport(
        row["provider_message_id"], row["status"], row["reported_at"], row["attempt_id"], raw=raw, **kept
    )
    return ReceivedReport(row["workspace_id"], row["provider_account_id"], report)


async def _apply(
    connection: Connection, known: Sequence[tuple[ReceivedReport, str, str]], request_id: str | None
) -> list[MessageChanges]:
    """Apply reports to their messages. Each provider account is the actor of its own reports."""
    if not known:
        return []
    messages, now = await lock_messages(connection, [(one.workspace_id, message_id) for one, message_id, _ in known])
    by_account: dict[str, list[tuple[ReceivedReport, MessageKey, str]]] = defaultdict(list)
    for one, message_id, attempt_id in known:
        by_account[one.account_id].append((one, (one.workspace_id, message_id), attempt_id))
    all_changes: list[MessageChanges] = []
    for account_id, reports in by_account.items():
        changes = MessageChanges(now, actor=Actor(type="provider", id=account_id), request_id=request_id)
        for one, key, attempt_id in reports:
            message = messages.get(key)
            attempt = message.find_attempt(attempt_id) if message is not None else None
            if message is not None and attempt is not None:
                apply_report(changes, message, attempt, one.report)
        await changes.write(connection)
        all_changes.append(changes)
    return all_changes
