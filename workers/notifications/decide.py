"""Decides on messages in one transaction: records results, starts attempts, and prepares their calls."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import structlog
from pydantic import ValidationError

from spine.kernel.settings import TemplateSettings
from spine.kernel.turns import Turns
from spine.kernel.vault import Unsealable, Vault
from spine.notifications.account_credentials import ProviderAccount, open_account
from spine.notifications.locked_messages import Connection, LockedAttempt, LockedMessage, MessageKey, lock_messages
from spine.notifications.message_changes import MessageChanges
from spine.notifications.provider_calls import FREE, ProviderCall, ProviderResult, charge
from spine.notifications.provider_kinds import PROVIDER_KINDS
from spine.notifications.recipient_paces import RecipientPaces
from spine.notifications.rendering import ParsedTemplate, TemplateCache, VariableMissing
from spine.notifications.state_machine.decide import Surroundings, decide_next_attempt
from spine.notifications.state_machine.results import record_result
from spine.notifications.template_budget import Unrenderable
from workers.notifications.accounts import Accounts, quotas_used_up
from workers.notifications.calls import CallResult, PreparedCall
from workers.notifications.limits import SendLimits

TEMPLATES_LOAD: Final = """
    SELECT t.id, t.bodies, t.provider_templates, t.dlt FROM unnest($1::text[], $2::text[]) AS u (workspace_id, id)
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

_Templates = dict[str, Any]
"""By id: a ParsedTemplate, or the row of one that is not parsed yet."""

_log = structlog.get_logger(__name__)


def _columns(keys: Iterable[MessageKey]) -> tuple[list[str], list[str]]:
    rows = list(keys)
    return [workspace_id for workspace_id, _ in rows], [id for _, id in rows]


@dataclass(slots=True)
class _Started:
    """An attempt whose call is to be made: with its account, and its template, parsed or as its row."""

    message: LockedMessage
    attempt: LockedAttempt
    account_row: Any
    template: Any = None


class MessageDecider:
    """Decides what each message does next.

    `is_in_flight` says if this process makes the call of an attempt or has its result; `was_not_made`, if it has left it out.
    """

    def __init__(
        self,
        vault: Vault,
        worker_id: str,
        lease: timedelta,
        limits: SendLimits,
        is_in_flight: Callable[[str], bool],
        was_not_made: Callable[[str], bool],
        template_settings: TemplateSettings,
        recheck_s: float,
    ) -> None:
        self._vault = vault
        self._template_settings = template_settings
        self._worker_id = worker_id
        self._lease = lease
        self._limits = limits
        self._recheck_s = recheck_s
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
            changes, started = await self._decide(connection, claimed, {})
        return changes, await self._prepare_all(started, lease_ends_s)

    async def record(
        self, connection: Connection, results: Mapping[MessageKey, CallResult]
    ) -> tuple[MessageChanges, list[PreparedCall]]:
        """Record results and decide on their messages, in one transaction. Returns the calls to make after the commit."""
        lease_ends_s = time.monotonic() + self._lease.total_seconds()
        async with connection.transaction():
            changes, started = await self._decide(connection, dict.fromkeys(results), results)
            if started:
                keys = _columns(one.message.key for one in started)
                await connection.execute(RENEW, self._worker_id, self._lease, *keys)
        return changes, await self._prepare_all(started, lease_ends_s)

    async def _decide(
        self, connection: Connection, keys: Mapping[MessageKey, str | None], results: Mapping[MessageKey, CallResult]
    ) -> tuple[MessageChanges, list[_Started]]:
        messages, now = await lock_messages(connection, keys, self._worker_id)
        changes = MessageChanges(now)
        accounts = await Accounts.load(connection, {key[0] for key in messages}, now, self._recheck_s, self._lease)
        paces = await RecipientPaces.lock(connection, messages.values(), accounts.by_id.values(), now)
        used_up = await quotas_used_up(connection, messages.values())
        started: list[_Started] = []
        broken: list[MessageKey] = []
        planned: Counter[str] = Counter()
        turns = Turns()
        for key, message in messages.items():

            def may_call(account_id: str, waited_for: str | None = keys[key]) -> bool:
                return account_id == waited_for or self._limits.may_call(
                    accounts.by_id[account_id], planned[account_id]
                )

            try:
                surroundings = Surroundings(
                    accounts.of(key[0]), accounts.breakers, paces, may_call, quota_used_up=key[0] in used_up
                )
                attempt = self._next_attempt(changes, message, results.get(key), surroundings)
            except Exception:
                _log.exception("a message cannot be decided on", message_id=key[1])
                broken.append(key)
                continue
            if attempt is not None:
                planned[attempt.provider_account_id] += 1
                started.append(_Started(message, attempt, accounts.start(attempt.provider_account_id)))
            await turns.give()
        await accounts.give_back_probes(connection)
        await paces.write(connection)
        await changes.write(connection, self._worker_id)
        if broken:
            await connection.execute(RELEASE, self._worker_id, _ERROR_PAUSE, *_columns(broken))
        templates = await self._fetch_templates(connection, [one.message for one in started])
        for one in started:
            one.template = templates[one.message.row["template_id"]]
        return changes, started

    async def _prepare_all(self, started: Sequence[_Started], lease_ends_s: float) -> list[PreparedCall]:
        """Render the messages, after the transaction. Rendering one takes up to SPINE_TEMPLATE_MAX_MS."""
        calls: list[PreparedCall] = []
        turns = Turns()
        for one in started:
            calls.append(await self._prepare(one, lease_ends_s))
            await turns.give()
        return calls

    def _next_attempt(
        self,
        changes: MessageChanges,
        message: LockedMessage,
        result: CallResult | None,
        surroundings: Surroundings,
    ) -> LockedAttempt | None:
        """The attempt that this message makes now."""
        if result is not None:
            attempt = message.find_attempt(result.prepared.attempt_id)
            if attempt is not None:
                record_result(changes, message, attempt, result.result, result.prepared.charge)
        if not message.leased:
            return None
        last = message.attempts[-1] if message.attempts else None
        recorded = result.prepared.attempt_id if result is not None else None
        if last is not None and last.id != recorded and self._is_in_flight(last.id):
            return None  # the lease ended before the call, or the record of its result, did; the result decides
        if last is not None and last.outcome is None and last.state != "failed":
            not_made = self._was_not_made(last.id)
            if last.state == "sending" and (not_made or PROVIDER_KINDS[last.provider].dedupes):
                why = "its call was not made" if not_made else "its worker was lost"
                changes.add_timeline_entry(message, "attempt.repeated", {"attempt_id": last.id, "why": why})
                return last
            record_result(changes, message, last, ProviderResult("unknown", None, "timeout", "worker_lost"))
        return decide_next_attempt(changes, message, surroundings)

    async def _fetch_templates(self, connection: Connection, messages: Iterable[LockedMessage]) -> _Templates:
        """Return the messages' templates by id, each parsed, or as its row if it is not parsed yet."""
        ids = {message.row["template_id"]: message.row["workspace_id"] for message in messages}
        found: _Templates = {id: self._templates.cached(id) for id in ids}
        missing = [id for id, parsed in found.items() if parsed is None]
        if missing:
            rows = await connection.fetch(TEMPLATES_LOAD, [ids[id] for id in missing], missing)
            found |= {row["id"]: row for row in rows}
        return found

    async def _prepare(self, started: _Started, lease_ends_s: float) -> PreparedCall:
        message, attempt = started.message, started.attempt
        rejection: ProviderResult | None = None
        call: ProviderCall | None = None
        account: ProviderAccount | None = None
        try:
            account = open_account(started.account_row, self._vault)
            call = await self._render(started)
        except Unsealable:
            rejection = ProviderResult("rejected", None, "config", "credentials_unreadable")
        except ValidationError:
            rejection = ProviderResult("rejected", None, "config", "account_invalid")  # saved under older rules
        except (VariableMissing, Unrenderable, KeyError) as error:
            _log.error("a message cannot be rendered", message_id=message.row["id"], error=repr(error))
            code = error.code if isinstance(error, Unrenderable) else Unrenderable.code
            rejection = ProviderResult("rejected", None, "content", code)
        return PreparedCall(
            message.key, account, call, attempt.id, attempt.provider_account_id, attempt.provider, message.env == "live",
            lease_ends_s, rejection, started.account_row["generation"],
            charge(call.channel, call.content.text, started.account_row["unit_cost_micros"]) if call else FREE,
        )  # fmt: skip

    async def _render(self, started: _Started) -> ProviderCall:
        message, attempt, template = started.message, started.attempt, started.template
        row = message.row
        if not isinstance(template, ParsedTemplate):
            template = await self._templates.get(row["template_id"], template)
        return ProviderCall(
            attempt_id=attempt.id,
            message_id=row["id"],
            workspace_id=row["workspace_id"],
            channel=attempt.channel,
            to=row["addresses"][attempt.channel],
            content=template.content(attempt.channel, row["vars"], self._template_settings),
            vars=row["vars"],
            env=message.env,
            number=attempt.number,
            wait_s=message.policy.steps[attempt.step].wait_s,
            provider_templates=template.provider_templates,
            dlt=template.dlt,
        )
