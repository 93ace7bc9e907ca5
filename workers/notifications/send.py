"""Sending messages: a line of work beside deliveries, over a queue of its own.

    bell "send" ─► claim due rows (lease) ─► decide: attempt rows, waits, ends (one transaction) ─► calls ─┐
                              ▲                                                                            ▼
                              └──── due again ◄──── record results and decide on (one transaction) ◄── results

Promised: an attempt is committed before its call, and no transaction is open during one. A worker that dies leaves its
rows to come due: an attempt without an outcome is repeated under its own id where the provider counts that once, and
is of unknown outcome elsewhere. Receipts change messages under the same row lock, so a timer and a receipt take turns.
"""

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg
import structlog

from products.notifications.providers import open_adapters
from providers.protocol import CALL_TIMEOUT_S
from spine.kernel.metrics import message_attempts, provider_seconds
from spine.kernel.vault import Unsealable
from spine.kernel.wakeups import WakeupKind
from spine.notifications.account_credentials import ProviderAccount, open_account
from spine.notifications.locked_messages import Connection, LockedAttempt, LockedMessage, MessageKey, lock_messages
from spine.notifications.message_changes import MessageChanges
from spine.notifications.provider_calls import ProviderCall, ProviderResult
from spine.notifications.provider_kinds import PROVIDER_KINDS
from spine.notifications.rendering import TemplateCache, Unrenderable, VariableMissing
from spine.notifications.state_machine.decide import decide_next_attempt
from spine.notifications.state_machine.results import record_result
from workers.connection import DedicatedConnection
from workers.pipeline import WorkerContext, run_forever, wait_for_wakeup

CLAIM: Final = """
    WITH picked AS MATERIALIZED (
        SELECT ctid FROM spine.sends_open WHERE due_at <= now() ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED
    )
    UPDATE spine.sends_open o SET due_at = now() + $2::interval, leased_by = $1
     WHERE o.ctid = ANY (ARRAY(SELECT ctid FROM picked)) RETURNING o.workspace_id, o.id
"""
ACCOUNTS_LOAD: Final = """
    SELECT workspace_id, id, env, name, channel, kind, priority, credentials, config, sandbox, rate_per_s
      FROM spine.provider_accounts WHERE workspace_id = ANY ($1::text[]) ORDER BY workspace_id, priority, id
"""
TEMPLATES_LOAD: Final = """
    SELECT t.id, t.bodies FROM unnest($1::text[], $2::text[]) AS u (workspace_id, id)
      JOIN spine.templates t ON t.workspace_id = u.workspace_id AND t.id = u.id
"""
RELEASE: Final = """
    UPDATE spine.sends_open SET due_at = now() + $2::interval, leased_by = NULL WHERE leased_by = $1 AND id = ANY ($3::text[])
"""

_BATCH: Final = 200
_IN_FLIGHT: Final = 256
_POLL_S: Final = 1.0
_LEASE_MARGIN_S: Final = 10.0
_SOON_S: Final = 0.05
_ECHO_S: Final = (0.07, 0.13, 0.19, 0.25)
"""When the sandbox's receipts of a call are due: the bell is rung for them."""
_BROKEN_PAUSE: Final = timedelta(seconds=60)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PreparedCall:
    """An attempt that is committed and to be made."""

    key: MessageKey
    account: ProviderAccount | None
    call: ProviderCall | None
    attempt_id: str
    kind: str
    flaw: ProviderResult | None
    """Why there is nothing to call with."""


@dataclass(frozen=True, slots=True)
class CallResult:
    """What came of a call."""

    due: PreparedCall
    result: ProviderResult
    seconds: float


class MessageSender:
    """The send line of one process."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._kinds = open_adapters(context.pool, context.http_client)
        self._parsed = TemplateCache()
        self._lease = timedelta(seconds=max(context.work.lease_s, CALL_TIMEOUT_S + _LEASE_MARGIN_S))
        self._claims = DedicatedConnection(context.pool)
        self._records = DedicatedConnection(context.pool)
        self._wake = asyncio.Event()
        self._came = asyncio.Event()
        self._answered: list[CallResult] = []
        self._calls: dict[str, asyncio.Task[None]] = {}
        self._uncommitted = 0
        self._stopping = False

    def on_wakeup(self, kind: WakeupKind) -> None:
        """A bell rang."""
        if kind == "send":
            self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        self._wake.set()
        async with asyncio.TaskGroup() as loops:
            loops.create_task(run_forever("send claim", self._claim_step))
            loops.create_task(run_forever("send record", self._record_step))

    async def drain(self, within_s: float) -> None:
        """Claim nothing more, wait for the calls under way and record them; leases of the rest end by themselves."""
        self._stopping = True
        until_s = time.monotonic() + within_s
        while (self._calls or self._answered or self._uncommitted) and time.monotonic() < until_s:  # noqa: ASYNC110  # three things end here
            await asyncio.sleep(0.01)

    # --- claiming ----------------------------------------------------------------------------------------------------

    async def _claim_step(self) -> None:
        room = min(_BATCH, _IN_FLIGHT - len(self._calls))
        if self._stopping or room <= 0:
            await asyncio.sleep(_SOON_S)
            return
        async with self._claims.connection() as connection:
            rows = await connection.fetch(CLAIM, self._context.worker_id, self._lease, room)
            keys = [(row["workspace_id"], row["id"]) for row in rows]
            changes, due = await self._settle(connection, keys, {}) if keys else (None, [])
        self._go_on(changes, due)
        if len(rows) < room:
            await wait_for_wakeup(self._wake, _POLL_S)

    # --- recording ---------------------------------------------------------------------------------------------------

    async def _record_step(self) -> None:
        await self._came.wait()
        self._came.clear()
        batch, self._answered = self._answered[:_BATCH], self._answered[_BATCH:]
        if self._answered:
            self._came.set()
        if not batch:
            return
        self._uncommitted += len(batch)
        try:
            async with self._records.connection() as connection:
                results = {one.due.key: one for one in batch}
                changes, due = await self._settle(connection, list(results), results)
        except BaseException:
            self._answered = batch + self._answered
            self._came.set()
            raise
        finally:
            self._uncommitted -= len(batch)
        for one in batch:
            channel = one.due.call.channel if one.due.call else "none"
            message_attempts(channel, one.due.kind, one.result.outcome).inc()
            provider_seconds(channel, one.due.kind).observe(one.seconds)
        self._go_on(changes, due)

    async def _settle(
        self, connection: Connection, keys: Sequence[MessageKey], results: dict[MessageKey, CallResult]
    ) -> tuple[MessageChanges, list[PreparedCall]]:
        """Record results and decide on each message, all in one transaction; answers the calls to be made after it."""
        async with connection.transaction():
            messages, now = await lock_messages(connection, keys, self._context.worker_id)
            changes = MessageChanges(now)
            rows = await connection.fetch(ACCOUNTS_LOAD, sorted({key[0] for key in messages}))
            going: list[tuple[LockedMessage, LockedAttempt]] = []
            broken: list[str] = []
            for key, message in messages.items():
                accounts = [row for row in rows if row["workspace_id"] == key[0]]
                try:
                    attempt = self._next(changes, message, results.get(key), accounts)
                except Exception:
                    _log.exception("a message cannot be decided on", message_id=key[1])
                    broken.append(key[1])
                    continue
                if attempt is not None:
                    going.append((message, attempt))
            await changes.write(connection, self._context.worker_id)
            if broken:
                await connection.execute(RELEASE, self._context.worker_id, _BROKEN_PAUSE, broken)
            await self._parse(connection, [message for message, _ in going])
        by_id = {row["id"]: row for row in rows}
        return changes, [self._due(message, attempt, by_id[attempt.provider_account_id]) for message, attempt in going]

    def _next(
        self, changes: MessageChanges, message: LockedMessage, answered: CallResult | None, accounts: list[Any]
    ) -> LockedAttempt | None:
        """The attempt that this message makes now."""
        if answered is not None:
            attempt = message.find_attempt(answered.due.attempt_id)
            if attempt is not None:
                record_result(changes, message, attempt, answered.result)
        if not message.leased:
            return None
        last = message.attempts[-1] if message.attempts else None
        if last is not None and last.outcome is None and last.state != "failed" and last.id not in self._calls:
            if PROVIDER_KINDS[last.provider].dedupes and last.state == "sending":
                changes.add_timeline_entry(
                    message, "attempt.repeated", {"attempt_id": last.id, "why": "its worker was lost"}
                )
                return last
            record_result(changes, message, last, ProviderResult("unknown", None, "timeout", "worker_lost"))
        elif last is not None and last.id in self._calls:
            return None  # the lease ended before the call did; its result will tell
        return decide_next_attempt(changes, message, accounts)

    async def _parse(self, connection: Connection, messages: Iterable[LockedMessage]) -> None:
        unknown = {
            (message.row["workspace_id"], message.row["template_id"])
            for message in messages
            if self._parsed.cached(message.row["template_id"]) is None
        }
        if unknown:
            rows = await connection.fetch(TEMPLATES_LOAD, [ws for ws, _ in unknown], [id for _, id in unknown])
            for row in rows:
                self._parsed.get(row["id"], row["bodies"])

    def _due(self, message: LockedMessage, attempt: LockedAttempt, account_row: Any) -> PreparedCall:
        row = message.row
        flaw: ProviderResult | None = None
        call: ProviderCall | None = None
        account: ProviderAccount | None = None
        try:
            account = open_account(account_row, self._context.vault)
            template = self._parsed.cached(row["template_id"])
            assert template is not None  # read in the same transaction
            call = ProviderCall(
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
        except Unsealable:
            flaw = ProviderResult("rejected", None, "config", "credentials_unreadable")
        except (VariableMissing, Unrenderable, KeyError) as error:
            _log.error("a message cannot be rendered", message_id=row["id"], error=repr(error))
            flaw = ProviderResult("rejected", None, "content", "template_unrenderable")
        return PreparedCall(message.key, account, call, attempt.id, attempt.provider, flaw)

    # --- calling -----------------------------------------------------------------------------------------------------

    def _go_on(self, changes: MessageChanges | None, due: Sequence[PreparedCall]) -> None:
        """After the commit: make the calls and ring the bells."""
        for one in due:
            self._calls[one.attempt_id] = asyncio.create_task(self._call(one))
        if changes is None:
            return
        changes.record_metrics()
        if changes.has_events:
            self._context.wakeups.wake("relay")
        now_s = time.time()
        times_s = [due_at.timestamp() for due_at in changes.due_times]
        if any(at_s <= now_s + _SOON_S for at_s in times_s):
            self._context.wakeups.wake("send")
            self._wake.set()
        later = [at_s for at_s in times_s if at_s > now_s]
        if later:
            self._context.wakeups.wake_at("send", later)

    async def _call(self, due: PreparedCall) -> None:
        start_s = time.perf_counter()
        try:
            result = due.flaw or await self._send(due)
        except asyncio.CancelledError:
            self._calls.pop(due.attempt_id, None)
            raise
        self._answered.append(CallResult(due, result, time.perf_counter() - start_s))
        self._calls.pop(due.attempt_id, None)
        self._came.set()
        if due.kind == "sandbox":
            now_s = datetime.now(UTC).timestamp()
            self._context.wakeups.wake_at("send", [now_s + after_s for after_s in _ECHO_S])

    async def _send(self, due: PreparedCall) -> ProviderResult:
        assert due.account is not None
        assert due.call is not None
        if (due.kind == "sandbox") != (due.call.env == "test"):
            return ProviderResult("rejected", None, "config", "provider_not_allowed")
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S + 1):
                return await self._kinds[due.kind].send(due.account, due.call)
        except TimeoutError:
            return ProviderResult("unknown", None, "timeout", "timeout")
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            # This machine's trouble or the sandbox's memory: whether the call was taken is not known.
            _log.warning("call broke", attempt_id=due.attempt_id, error=repr(error))
            return ProviderResult("unknown", None, "ours", "call_broke")
        except Exception:
            _log.exception("call broke", attempt_id=due.attempt_id)
            return ProviderResult("unknown", None, "ours", "call_broke")
