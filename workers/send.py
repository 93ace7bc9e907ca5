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

from products.provider_kinds import providers
from providers.protocol import CALL_TIMEOUT_S
from spine.bell import Kind
from spine.messages import progress
from spine.messages.accounts import Account, opened
from spine.messages.calls import Call, Result
from spine.messages.kinds import KINDS
from spine.messages.live import Connection, Key, Ledger, LiveAttempt, LiveMessage, load
from spine.messages.rendering import Templates, Unrenderable, VariableMissing
from spine.metrics import message_attempts, provider_seconds
from spine.vault import Unsealable
from workers.desk import Desk
from workers.line import Tools, keep_going, wait_for_bell

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

_log = structlog.get_logger("workers.send")


@dataclass(frozen=True, slots=True)
class Due:
    """An attempt that is committed and to be made."""

    key: Key
    account: Account | None
    call: Call | None
    attempt_id: str
    kind: str
    flaw: Result | None
    """Why there is nothing to call with."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of a call."""

    due: Due
    result: Result
    seconds: float


class Sends:
    """The send line of one process."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._kinds = providers(tools.pool, tools.egress)
        self._parsed = Templates()
        self._lease = timedelta(seconds=max(tools.work.lease_s, CALL_TIMEOUT_S + _LEASE_MARGIN_S))
        self._claims = Desk(tools.pool)
        self._records = Desk(tools.pool)
        self._wake = asyncio.Event()
        self._came = asyncio.Event()
        self._answered: list[Answered] = []
        self._calls: dict[str, asyncio.Task[None]] = {}
        self._unsafe = 0
        self._stopping = False

    def hear(self, kind: Kind) -> None:
        """A bell rang."""
        if kind == "send":
            self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        self._wake.set()
        async with asyncio.TaskGroup() as loops:
            loops.create_task(keep_going("send claim", self._claim_step))
            loops.create_task(keep_going("send record", self._record_step))

    async def drain(self, within_s: float) -> None:
        """Claim nothing more, wait for the calls under way and record them; leases of the rest end by themselves."""
        self._stopping = True
        until_s = time.monotonic() + within_s
        while (self._calls or self._answered or self._unsafe) and time.monotonic() < until_s:  # noqa: ASYNC110  # three things end here
            await asyncio.sleep(0.01)

    # --- claiming ----------------------------------------------------------------------------------------------------

    async def _claim_step(self) -> None:
        room = min(_BATCH, _IN_FLIGHT - len(self._calls))
        if self._stopping or room <= 0:
            await asyncio.sleep(_SOON_S)
            return
        async with self._claims.connection() as connection:
            rows = await connection.fetch(CLAIM, self._tools.worker_id, self._lease, room)
            keys = [(row["workspace_id"], row["id"]) for row in rows]
            ledger, due = await self._settle(connection, keys, {}) if keys else (None, [])
        self._go_on(ledger, due)
        if len(rows) < room:
            await wait_for_bell(self._wake, _POLL_S)

    # --- recording ---------------------------------------------------------------------------------------------------

    async def _record_step(self) -> None:
        await self._came.wait()
        self._came.clear()
        batch, self._answered = self._answered[:_BATCH], self._answered[_BATCH:]
        if self._answered:
            self._came.set()
        if not batch:
            return
        self._unsafe += len(batch)
        try:
            async with self._records.connection() as connection:
                results = {one.due.key: one for one in batch}
                ledger, due = await self._settle(connection, list(results), results)
        except BaseException:
            self._answered = batch + self._answered
            self._came.set()
            raise
        finally:
            self._unsafe -= len(batch)
        for one in batch:
            channel = one.due.call.channel if one.due.call else "none"
            message_attempts(channel, one.due.kind, one.result.outcome).inc()
            provider_seconds(channel, one.due.kind).observe(one.seconds)
        self._go_on(ledger, due)

    async def _settle(
        self, connection: Connection, keys: Sequence[Key], results: dict[Key, Answered]
    ) -> tuple[Ledger, list[Due]]:
        """Record results and decide on each message, all in one transaction; answers the calls to be made after it."""
        async with connection.transaction():
            messages, now = await load(connection, keys, self._tools.worker_id)
            ledger = Ledger(now)
            rows = await connection.fetch(ACCOUNTS_LOAD, sorted({key[0] for key in messages}))
            going: list[tuple[LiveMessage, LiveAttempt]] = []
            broken: list[str] = []
            for key, message in messages.items():
                accounts = [row for row in rows if row["workspace_id"] == key[0]]
                try:
                    attempt = self._next(ledger, message, results.get(key), accounts)
                except Exception:
                    _log.exception("a message cannot be decided on", message_id=key[1])
                    broken.append(key[1])
                    continue
                if attempt is not None:
                    going.append((message, attempt))
            await ledger.write(connection, self._tools.worker_id)
            if broken:
                await connection.execute(RELEASE, self._tools.worker_id, _BROKEN_PAUSE, broken)
            await self._parse(connection, [message for message, _ in going])
        by_id = {row["id"]: row for row in rows}
        return ledger, [self._due(message, attempt, by_id[attempt.provider_account_id]) for message, attempt in going]

    def _next(
        self, ledger: Ledger, message: LiveMessage, answered: Answered | None, accounts: list[Any]
    ) -> LiveAttempt | None:
        """The attempt that this message makes now."""
        if answered is not None:
            attempt = message.attempt(answered.due.attempt_id)
            if attempt is not None:
                progress.take_result(ledger, message, attempt, answered.result)
        if not message.mine:
            return None
        last = message.attempts[-1] if message.attempts else None
        if last is not None and last.outcome is None and last.state != "failed" and last.id not in self._calls:
            if KINDS[last.provider].dedupes and last.state == "sending":
                ledger.note(message, "attempt.repeated", {"attempt_id": last.id, "why": "its worker was lost"})
                return last
            progress.take_result(ledger, message, last, Result("unknown", None, "timeout", "worker_lost"))
        elif last is not None and last.id in self._calls:
            return None  # the lease ended before the call did; its result will tell
        return progress.decide(ledger, message, accounts)

    async def _parse(self, connection: Connection, messages: Iterable[LiveMessage]) -> None:
        unknown = {
            (message.row["workspace_id"], message.row["template_id"])
            for message in messages
            if self._parsed.known(message.row["template_id"]) is None
        }
        if unknown:
            rows = await connection.fetch(TEMPLATES_LOAD, [ws for ws, _ in unknown], [id for _, id in unknown])
            for row in rows:
                self._parsed.get(row["id"], row["bodies"])

    def _due(self, message: LiveMessage, attempt: LiveAttempt, account_row: Any) -> Due:
        row = message.row
        flaw: Result | None = None
        call: Call | None = None
        account: Account | None = None
        try:
            account = opened(account_row, self._tools.vault)
            template = self._parsed.known(row["template_id"])
            assert template is not None  # read in the same transaction
            call = Call(
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
            flaw = Result("rejected", None, "config", "credentials_unreadable")
        except (VariableMissing, Unrenderable, KeyError) as error:
            _log.error("a message cannot be rendered", message_id=row["id"], error=repr(error))
            flaw = Result("rejected", None, "content", "template_unrenderable")
        return Due(message.key, account, call, attempt.id, attempt.provider, flaw)

    # --- calling -----------------------------------------------------------------------------------------------------

    def _go_on(self, ledger: Ledger | None, due: Sequence[Due]) -> None:
        """After the commit: make the calls and ring the bells."""
        for one in due:
            self._calls[one.attempt_id] = asyncio.create_task(self._call(one))
        if ledger is None:
            return
        ledger.count()
        if ledger.has_events:
            self._tools.bell.ring("relay")
        now_s = time.time()
        times_s = [due_at.timestamp() for due_at in ledger.due_times]
        if any(at_s <= now_s + _SOON_S for at_s in times_s):
            self._tools.bell.ring("send")
            self._wake.set()
        later = [at_s for at_s in times_s if at_s > now_s]
        if later:
            self._tools.bell.ring_at("send", later)

    async def _call(self, due: Due) -> None:
        start_s = time.perf_counter()
        try:
            result = due.flaw or await self._send(due)
        except asyncio.CancelledError:
            self._calls.pop(due.attempt_id, None)
            raise
        self._answered.append(Answered(due, result, time.perf_counter() - start_s))
        self._calls.pop(due.attempt_id, None)
        self._came.set()
        if due.kind == "sandbox":
            now_s = datetime.now(UTC).timestamp()
            self._tools.bell.ring_at("send", [now_s + after_s for after_s in _ECHO_S])

    async def _send(self, due: Due) -> Result:
        assert due.account is not None
        assert due.call is not None
        if (due.kind == "sandbox") != (due.call.env == "test"):
            return Result("rejected", None, "config", "provider_not_allowed")
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S + 1):
                return await self._kinds[due.kind].send(due.account, due.call)
        except TimeoutError:
            return Result("unknown", None, "timeout", "timeout")
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            # This machine's trouble or the sandbox's memory: whether the call was taken is not known.
            _log.warning("call broke", attempt_id=due.attempt_id, error=repr(error))
            return Result("unknown", None, "ours", "call_broke")
        except Exception:
            _log.exception("call broke", attempt_id=due.attempt_id)
            return Result("unknown", None, "ours", "call_broke")
