"""Signs, verifies and applies due receipts of sandbox accounts, and applies parked receipts.

A receipt is signed as a provider signs it. It passes `products.notifications.inbound.read_callback` and
`spine.notifications.receipts.receive_reports`, the code behind POST /notifications/v1/inbound; only HTTP is left out.
The receipts that a killed worker had claimed come due again, and each is still stored once.
"""

import asyncio
import time
from datetime import timedelta
from typing import Any, Final

from products.notifications.inbound import read_callback
from products.notifications.providers import open_adapters
from providers.protocol import Callback
from spine.kernel.wakeups import WakeupKind
from spine.notifications import receipts
from spine.notifications.account_credentials import open_account
from spine.notifications.message_changes import MessageChanges, after_commit
from spine.webhooks.signing import sign
from workers.connection import DedicatedConnection
from workers.pipeline import WorkerContext, run_forever, wait_for_wakeup

CLAIM: Final = """
    WITH picked AS MATERIALIZED (
        SELECT ctid FROM spine.sandbox_receipts WHERE due_at <= now() ORDER BY due_at, seq LIMIT $3 FOR UPDATE SKIP LOCKED
    ), claimed AS (
        UPDATE spine.sandbox_receipts o SET due_at = now() + $2::interval, leased_by = $1
         WHERE o.ctid = ANY (ARRAY(SELECT ctid FROM picked)) RETURNING o.*
    )
    SELECT c.workspace_id, c.seq, c.provider_account_id, c.body, c.late AND t.left_at IS NULL AS early
      FROM claimed c LEFT JOIN spine.attempts t ON t.workspace_id = c.workspace_id AND t.id = c.attempt_id
     ORDER BY c.seq
"""
ACCOUNTS_LOAD: Final = """
    SELECT workspace_id, id, env, channel, kind, credentials, config, sandbox FROM spine.provider_accounts
     WHERE id = ANY ($1::text[])
"""
DELETE: Final = "DELETE FROM spine.sandbox_receipts WHERE leased_by = $1 AND seq = ANY ($2::bigint[])"
POSTPONE: Final = """
    UPDATE spine.sandbox_receipts SET due_at = now() + $2::interval, leased_by = NULL WHERE leased_by = $1 AND seq = ANY ($3::bigint[])
"""
NEXT_DUE: Final = (
    "SELECT extract(epoch FROM due_at - now())::float8 FROM spine.sandbox_receipts ORDER BY due_at, seq LIMIT 1"
)

_BATCH: Final = 200
_LEASE: Final = timedelta(seconds=15)
_POSTPONED: Final = timedelta(milliseconds=200)
_POLL_S: Final = 1.0
_PARKED_POLL_S: Final = 5.0
_PARKED_PAUSE_S: Final = 0.1
"""Pause between two full batches of parked receipts."""


class ReceiptPipeline:
    """Applies sandbox receipts when they are due, and parked receipts when their attempt is known."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._adapters = open_adapters(context.pool, context.http_client, context.public_url)
        self._db = DedicatedConnection(context.pool)
        self._parked_db = DedicatedConnection(context.pool)
        self._wakeup = asyncio.Event()
        self._stopping = False

    def on_wakeup(self, kind: WakeupKind) -> None:
        """Claim soon if sandbox receipts may be due."""
        if kind == "send":
            self._wakeup.set()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as loops:
            loops.create_task(run_forever("sandbox receipts", self._step))
            loops.create_task(run_forever("parked receipts", self._apply_parked))

    async def drain(self, timeout_s: float) -> None:  # noqa: ARG002  # a batch is too short to need a bound
        """Claim nothing more. The current batch is one transaction."""
        self._stopping = True

    async def _step(self) -> None:
        if self._stopping:
            await asyncio.sleep(_POLL_S)
            return
        async with self._db.connection() as connection:
            rows = await connection.fetch(CLAIM, self._context.worker_id, _LEASE, _BATCH)
            early = [row["seq"] for row in rows if row["early"]]
            if early:
                await connection.execute(POSTPONE, self._context.worker_id, _POSTPONED, early)
            due = [row for row in rows if not row["early"]]
            all_changes = await self._apply(connection, due) if due else []
            next_s = await connection.fetchval(NEXT_DUE) if len(rows) < _BATCH else 0.0
        after_commit(all_changes, self._context.wakeups)
        pause_s = _POLL_S if next_s is None else min(max(next_s, 0.0), _POLL_S)
        if pause_s > 0:
            await wait_for_wakeup(self._wakeup, pause_s)

    async def _apply(self, connection: Any, due: list[Any]) -> list[MessageChanges]:
        """Sign, verify and apply a batch, and delete its rows, in one transaction."""
        context = self._context
        rows = await connection.fetch(ACCOUNTS_LOAD, sorted({row["provider_account_id"] for row in due}))
        accounts = {row["id"]: row for row in rows}
        reports = []
        for row in due:
            account_row = accounts[row["provider_account_id"]]
            id, timestamp_s = f"sbx_{row['seq']}", int(time.time())
            secret = open_account(account_row, context.vault).credentials.secret
            headers = {
                "webhook-id": id,
                "webhook-timestamp": str(timestamp_s),
                "webhook-signature": sign(id, timestamp_s, row["body"], [secret]),
            }
            callback = Callback("POST", "", headers, row["body"], {})
            reports += read_callback(self._adapters, account_row, context.vault, callback)[0]
        async with connection.transaction():
            all_changes = await receipts.receive_reports(connection, reports)
            await connection.execute(DELETE, context.worker_id, [row["seq"] for row in due])
        return all_changes

    async def _apply_parked(self) -> None:
        async with self._parked_db.connection() as connection, connection.transaction():
            all_changes, looked = await receipts.apply_parked_reports(connection, _BATCH)
        after_commit(all_changes, self._context.wakeups)
        await asyncio.sleep(_PARKED_POLL_S if looked < _BATCH else _PARKED_PAUSE_S)
