"""The calls that the sandbox has accepted, as rows: those that come at once are stored in one statement."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import asyncpg

# A repeated call stores nothing, no receipts either.
CALLS_PUT: Final = """
    WITH taken AS (
        INSERT INTO spine.sandbox_calls (workspace_id, attempt_id, provider_message_id)
        SELECT * FROM unnest($1::text[], $2::text[], $3::text[]) AS u (workspace_id, attempt_id, id) ORDER BY 1, 2
        ON CONFLICT DO NOTHING RETURNING workspace_id, attempt_id
    )
    INSERT INTO spine.sandbox_receipts (workspace_id, provider_account_id, attempt_id, body, late, due_at)
    SELECT workspace_id, u.account_id, attempt_id, u.body, u.late, now() + u.after
      FROM unnest($4::text[], $5::text[], $6::text[], $7::bytea[], $8::boolean[], $9::interval[])
           WITH ORDINALITY AS u (workspace_id, account_id, attempt_id, body, late, after, n)
      JOIN taken USING (workspace_id, attempt_id) ORDER BY u.n
"""
_BATCH: Final = 100


@dataclass(frozen=True, slots=True)
class SandboxCall:
    """An accepted call, with the bodies of its receipts and when each is due after it."""

    workspace_id: str
    account_id: str
    attempt_id: str
    provider_message_id: str
    receipts: Sequence[tuple[bytes, timedelta]]
    late: bool
    """Whether the receipts come only after the step's wait."""


class SandboxCalls:
    """Stores calls. While one statement is under way, the calls that come wait for the next one."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool
        self._waiting: list[tuple[SandboxCall, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def put(self, call: SandboxCall) -> None:
        """Store a call with its receipts. Raises what the database raises."""
        stored = asyncio.get_running_loop().create_future()
        self._waiting.append((call, stored))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        await stored

    async def _write(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
                error: Exception | None = None
                try:
                    await self._store([call for call, _ in batch])
                except Exception as caught:
                    error = caught
                for _, stored in batch:
                    if stored.done():
                        continue  # its caller no longer waits
                    if error is None:
                        stored.set_result(None)
                    else:
                        stored.set_exception(error)
        finally:
            self._writing = None

    async def _store(self, calls: Sequence[SandboxCall]) -> None:
        receipts = [(call, body, after) for call in calls for body, after in call.receipts]
        await self._pool.execute(
            CALLS_PUT,
            [call.workspace_id for call in calls],
            [call.attempt_id for call in calls],
            [call.provider_message_id for call in calls],
            [call.workspace_id for call, _, _ in receipts],
            [call.account_id for call, _, _ in receipts],
            [call.attempt_id for call, _, _ in receipts],
            [body for _, body, _ in receipts],
            [call.late for call, _, _ in receipts],
            [after for _, _, after in receipts],
        )
