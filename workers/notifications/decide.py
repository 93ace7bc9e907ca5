"""Decides on messages in one transaction: records results, starts attempts, and prepares their calls."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, Final

import structlog

from spine.kernel.vault import Unsealable, Vault
from spine.notifications.account_credentials import ProviderAccount, open_account
from spine.notifications.locked_messages import Connection, LockedAttempt, LockedMessage, MessageKey, lock_messages
from spine.notifications.message_changes import MessageChanges
from spine.notifications.provider_calls import ProviderCall, ProviderResult
from spine.notifications.provider_kinds import PROVIDER_KINDS
from spine.notifications.rendering import TemplateCache, Unrenderable, VariableMissing
from spine.notifications.state_machine.decide import decide_next_attempt
from spine.notifications.state_machine.results import record_result
from workers.notifications.calls import CallResult, PreparedCall
from workers.notifications.limits import SendLimits

ACCOUNTS_LOAD: Final = """
    SELECT workspace_id, id, env, name, channel, kind, priority, rate_per_s, credentials, config, sandbox
      FROM spine.provider_accounts WHERE workspace_id = ANY ($1::text[]) ORDER BY workspace_id, priority, id
"""
TEMPLATES_LOAD: Final = """
    SELECT t.id, t.bodies FROM unnest($1::text[], $2::text[]) AS u (workspace_id, id)
      JOIN spine.templates t ON t.workspace_id = u.workspace_id AND t.id = u.id
"""
RELEASE: Final = """
    UPDATE spine.sends_open o SET due_at = now() + $2::interval, leased_by = NULL
      FROM unnest($3::text[], $4::text[]) AS u (workspace_id, id)
     WHERE o.workspace_id = u.workspace_id AND o.id = u.id AND o.leased_by = $1
"""

RENEW: Final = """
    UPDATE spine.sends_open o SET due_at = now() + $2::interval FROM unnest($3::text[], $4::text[]) AS u (workspace_id, id)
     WHERE o.workspace_id = u.workspace_id AND o.id = u.id AND o.leased_by = $1
"""
"""Renews the leases of messages that start a further call under them."""

_ERROR_PAUSE: Final = timedelta(seconds=60)
"""A message that raises an error here is due again after this time."""

_log = structlog.get_logger(__name__)


def _columns(keys: Iterable[MessageKey]) -> tuple[list[str], list[str]]:
    rows = list(keys)
    return [workspace_id for workspace_id, _ in rows], [id for _, id in rows]


class MessageDecider:
    """Decides what each message does next.

    `is_in_flight` says if this process still makes the call of an attempt; `was_not_made`, if it has left it out.
    """

    def __init__(
        self,
        vault: Vault,
        worker_id: str,
        lease: timedelta,
        limits: SendLimits,
        is_in_flight: Callable[[str], bool],
        was_not_made: Callable[[str], bool],
    ) -> None:
        self._vault = vault
        self._worker_id = worker_id
        self._lease = lease
        self._limits = limits
        self._is_in_flight = is_in_flight
        self._was_not_made = was_not_made
        self._templates = TemplateCache()

    async def decide(
        self, connection: Connection, claimed: Mapping[MessageKey, str | None], lease_ends_s: float
    ) -> tuple[MessageChanges, list[PreparedCall]]:
        """Decide on each claimed message, in one transaction. Returns the calls to make after the commit.

        `claimed` names the account for which a message has waited and may call now.
        """
        async with connection.transaction():
            return await self._decide(connection, claimed, {}, lease_ends_s)

    async def record(
        self, connection: Connection, results: Mapping[MessageKey, CallResult]
    ) -> tuple[MessageChanges, list[PreparedCall]]:
        """Record results and decide on their messages, in one transaction. Returns the calls to make after the commit."""
        lease_ends_s = time.monotonic() + self._lease.total_seconds()
        async with connection.transaction():
            changes, calls = await self._decide(connection, dict.fromkeys(results), results, lease_ends_s)
            if calls:
                await connection.execute(RENEW, self._worker_id, self._lease, *_columns(call.key for call in calls))
        return changes, calls

    async def _decide(
        self,
        connection: Connection,
        keys: Mapping[MessageKey, str | None],
        results: Mapping[MessageKey, CallResult],
        lease_ends_s: float,
    ) -> tuple[MessageChanges, list[PreparedCall]]:
        messages, now = await lock_messages(connection, keys, self._worker_id)
        changes = MessageChanges(now)
        rows = await connection.fetch(ACCOUNTS_LOAD, sorted({key[0] for key in messages}))
        by_id = {row["id"]: row for row in rows}
        started: list[tuple[LockedMessage, LockedAttempt]] = []
        broken: list[MessageKey] = []
        planned: Counter[str] = Counter()
        for key, message in messages.items():
            accounts = [row for row in rows if row["workspace_id"] == key[0]]

            def may_call(account_id: str, waited_for: str | None = keys[key]) -> bool:
                return account_id == waited_for or self._limits.may_call(by_id[account_id], planned[account_id])

            try:
                attempt = self._next_attempt(changes, message, results.get(key), accounts, may_call)
            except Exception:
                _log.exception("a message cannot be decided on", message_id=key[1])
                broken.append(key)
                continue
            if attempt is not None:
                planned[attempt.provider_account_id] += 1
                started.append((message, attempt))
        await changes.write(connection, self._worker_id)
        if broken:
            await connection.execute(RELEASE, self._worker_id, _ERROR_PAUSE, *_columns(broken))
        await self._load_templates(connection, [message for message, _ in started])
        return changes, [
            self._prepare(message, attempt, by_id[attempt.provider_account_id], lease_ends_s)
            for message, attempt in started
        ]

    def _next_attempt(
        self,
        changes: MessageChanges,
        message: LockedMessage,
        result: CallResult | None,
        accounts: list[Any],
        may_call: Callable[[str], bool],
    ) -> LockedAttempt | None:
        """The attempt that this message makes now."""
        if result is not None:
            attempt = message.find_attempt(result.prepared.attempt_id)
            if attempt is not None:
                record_result(changes, message, attempt, result.result)
        if not message.leased:
            return None
        last = message.attempts[-1] if message.attempts else None
        if last is not None and self._is_in_flight(last.id):
            return None  # the lease ended before the call did; the result of the call decides
        if last is not None and last.outcome is None and last.state != "failed":
            not_made = self._was_not_made(last.id)
            if last.state == "sending" and (not_made or PROVIDER_KINDS[last.provider].dedupes):
                why = "its call was not made" if not_made else "its worker was lost"
                changes.add_timeline_entry(message, "attempt.repeated", {"attempt_id": last.id, "why": why})
                return last
            record_result(changes, message, last, ProviderResult("unknown", None, "timeout", "worker_lost"))
        return decide_next_attempt(changes, message, accounts, may_call)

    async def _load_templates(self, connection: Connection, messages: Iterable[LockedMessage]) -> None:
        missing = {
            (message.row["workspace_id"], message.row["template_id"])
            for message in messages
            if self._templates.cached(message.row["template_id"]) is None
        }
        if missing:
            rows = await connection.fetch(TEMPLATES_LOAD, [ws for ws, _ in missing], [id for _, id in missing])
            for row in rows:
                self._templates.get(row["id"], row["bodies"])

    def _prepare(
        self, message: LockedMessage, attempt: LockedAttempt, account_row: Any, lease_ends_s: float
    ) -> PreparedCall:
        rejection: ProviderResult | None = None
        call: ProviderCall | None = None
        account: ProviderAccount | None = None
        try:
            account = open_account(account_row, self._vault)
            call = self._render(message, attempt)
        except Unsealable:
            rejection = ProviderResult("rejected", None, "config", "credentials_unreadable")
        except (VariableMissing, Unrenderable, KeyError) as error:
            _log.error("a message cannot be rendered", message_id=message.row["id"], error=repr(error))
            rejection = ProviderResult("rejected", None, "content", "template_unrenderable")
        return PreparedCall(
            message.key, account, call, attempt.id, attempt.provider_account_id, attempt.provider, message.env == "live",
            lease_ends_s, rejection,
        )  # fmt: skip

    def _render(self, message: LockedMessage, attempt: LockedAttempt) -> ProviderCall:
        row = message.row
        template = self._templates.cached(row["template_id"])
        assert template is not None  # read in the same transaction
        return ProviderCall(
            attempt_id=attempt.id,
            message_id=row["id"],
            workspace_id=row["workspace_id"],
            channel=attempt.channel,
            to=row["addresses"][attempt.channel],
            content=template.content(attempt.channel, row["vars"]),
            vars=row["vars"],
            env=message.env,
            number=attempt.number,
            wait_s=message.policy.steps[attempt.step].wait_s,
        )
