"""Decides on messages in one transaction: records results, starts attempts, and prepares their calls."""

from collections.abc import Callable, Iterable, Mapping, Sequence
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
from spine.notifications.provider_calls import ProviderCall, ProviderResult
from spine.notifications.provider_kinds import PROVIDER_KINDS
from spine.notifications.rendering import ParsedTemplate, TemplateCache, VariableMissing
from spine.notifications.state_machine.decide import decide_next_attempt
from spine.notifications.state_machine.results import record_result
from spine.notifications.template_budget import Unrenderable
from workers.notifications.calls import CallResult, PreparedCall

ACCOUNTS_LOAD: Final = """
    SELECT workspace_id, id, env, name, channel, kind, priority, credentials, config, sandbox
      FROM spine.provider_accounts WHERE workspace_id = ANY ($1::text[]) ORDER BY workspace_id, priority, id
"""
TEMPLATES_LOAD: Final = """
    SELECT t.id, t.bodies FROM unnest($1::text[], $2::text[]) AS u (workspace_id, id)
      JOIN spine.templates t ON t.workspace_id = u.workspace_id AND t.id = u.id
"""
RELEASE: Final = """
    UPDATE spine.sends_open SET due_at = now() + $2::interval, leased_by = NULL WHERE leased_by = $1 AND id = ANY ($3::text[])
"""

_ERROR_PAUSE: Final = timedelta(seconds=60)
"""A message that raises an error here is due again after this time."""

_Templates = dict[str, Any]
"""By id: a ParsedTemplate, or the bodies of one that is not parsed yet."""

_log = structlog.get_logger(__name__)


class MessageDecider:
    """Decides what each message does next. `is_in_flight` says if this process still makes the call of an attempt."""

    def __init__(
        self, vault: Vault, worker_id: str, is_in_flight: Callable[[str], bool], template_settings: TemplateSettings
    ) -> None:
        self._vault = vault
        self._template_settings = template_settings
        self._worker_id = worker_id
        self._is_in_flight = is_in_flight
        self._templates = TemplateCache()

    async def decide(
        self, connection: Connection, keys: Sequence[MessageKey], results: Mapping[MessageKey, CallResult]
    ) -> tuple[MessageChanges, list[PreparedCall]]:
        """Record results and decide on each message, in one transaction. Returns the calls to make after the commit."""
        async with connection.transaction():
            messages, now = await lock_messages(connection, keys, self._worker_id)
            changes = MessageChanges(now)
            rows = await connection.fetch(ACCOUNTS_LOAD, sorted({key[0] for key in messages}))
            started: list[tuple[LockedMessage, LockedAttempt]] = []
            broken: list[str] = []
            for key, message in messages.items():
                accounts = [row for row in rows if row["workspace_id"] == key[0]]
                try:
                    attempt = self._next_attempt(changes, message, results.get(key), accounts)
                except Exception:
                    _log.exception("a message cannot be decided on", message_id=key[1])
                    broken.append(key[1])
                    continue
                if attempt is not None:
                    started.append((message, attempt))
            await changes.write(connection, self._worker_id)
            if broken:
                await connection.execute(RELEASE, self._worker_id, _ERROR_PAUSE, broken)
            templates = await self._fetch_templates(connection, [message for message, _ in started])
        by_id = {row["id"]: row for row in rows}
        calls: list[PreparedCall] = []
        turns = Turns()
        for message, attempt in started:
            calls.append(await self._prepare(message, attempt, by_id[attempt.provider_account_id], templates))
            await turns.give()  # rendering a message takes up to SPINE_TEMPLATE_MAX_MS
        return changes, calls

    def _next_attempt(
        self, changes: MessageChanges, message: LockedMessage, result: CallResult | None, accounts: list[Any]
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
            if PROVIDER_KINDS[last.provider].dedupes and last.state == "sending":
                changes.add_timeline_entry(
                    message, "attempt.repeated", {"attempt_id": last.id, "why": "its worker was lost"}
                )
                return last
            record_result(changes, message, last, ProviderResult("unknown", None, "timeout", "worker_lost"))
        return decide_next_attempt(changes, message, accounts)

    async def _fetch_templates(self, connection: Connection, messages: Iterable[LockedMessage]) -> _Templates:
        """Return the messages' templates by id, each parsed, or as its bodies if it is not parsed yet."""
        ids = {message.row["template_id"]: message.row["workspace_id"] for message in messages}
        found: _Templates = {id: self._templates.cached(id) for id in ids}
        missing = [id for id, parsed in found.items() if parsed is None]
        if missing:
            rows = await connection.fetch(TEMPLATES_LOAD, [ids[id] for id in missing], missing)
            found |= {row["id"]: row["bodies"] for row in rows}
        return found

    async def _prepare(
        self, message: LockedMessage, attempt: LockedAttempt, account_row: Any, templates: _Templates
    ) -> PreparedCall:
        rejection: ProviderResult | None = None
        call: ProviderCall | None = None
        account: ProviderAccount | None = None
        try:
            account = open_account(account_row, self._vault)
            call = await self._render(message, attempt, templates)
        except Unsealable:
            rejection = ProviderResult("rejected", None, "config", "credentials_unreadable")
        except ValidationError:
            rejection = ProviderResult("rejected", None, "config", "account_invalid")  # saved under older rules
        except (VariableMissing, Unrenderable, KeyError) as error:
            _log.error("a message cannot be rendered", message_id=message.row["id"], error=repr(error))
            code = error.code if isinstance(error, Unrenderable) else Unrenderable.code
            rejection = ProviderResult("rejected", None, "content", code)
        return PreparedCall(message.key, account, call, attempt.id, attempt.provider, rejection)

    async def _render(self, message: LockedMessage, attempt: LockedAttempt, templates: _Templates) -> ProviderCall:
        row = message.row
        template = templates[row["template_id"]]
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
        )
