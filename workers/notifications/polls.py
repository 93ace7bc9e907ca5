"""Asks providers what became of attempts whose receipt did not come in time (failure case 27)."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import asyncpg
import structlog

from providers.protocol import CALL_TIMEOUT_S, Provider
from spine.kernel.vault import Unsealable
from spine.notifications import receipts
from spine.notifications.account_credentials import ACCOUNT_LOAD, open_account
from spine.notifications.locked_messages import LockedAttempt
from spine.notifications.message_changes import after_commit
from spine.notifications.provider_calls import ProviderReport
from spine.notifications.receipts import ReceivedReport
from workers.pipeline import WorkerContext

GO_ON: Final = """
    UPDATE spine.sends_open SET due_at = now() WHERE workspace_id = $1 AND id = $2 AND leased_by IS NULL AND due_at > now()
"""
"""The message need not wait longer: its provider has answered."""

_MAX_POLLS: Final = 16
_MAX_WAITING: Final = 1_000
_log = structlog.get_logger(__name__)


class Poller:
    """Asks in the background, 16 providers at the same time. A message whose poll is lost goes on at its due time."""

    def __init__(self, context: WorkerContext, adapters: Mapping[str, Provider]) -> None:
        self._context = context
        self._adapters = adapters
        self._slots = asyncio.Semaphore(_MAX_POLLS)
        self._polls: set[asyncio.Task[None]] = set()

    def start(self, attempts: Sequence[LockedAttempt]) -> None:
        """Ask about these attempts; returns at once."""
        for attempt in attempts[: max(0, _MAX_WAITING - len(self._polls))]:
            poll = asyncio.create_task(self._poll(attempt))
            self._polls.add(poll)
            poll.add_done_callback(self._polls.discard)

    async def stop(self) -> None:
        """Ask no more. The messages go on at their due times."""
        polls = list(self._polls)
        for poll in polls:
            poll.cancel()
        await asyncio.gather(*polls, return_exceptions=True)

    async def _poll(self, attempt: LockedAttempt) -> None:
        try:
            async with self._slots:
                report = await self._ask(attempt)
            async with self._context.pool.acquire() as connection:
                if report is not None:
                    received = ReceivedReport(attempt.workspace_id, attempt.provider_account_id, report)
                    async with connection.transaction():
                        all_changes = await receipts.receive_reports(connection, [received])
                    after_commit(all_changes, self._context.wakeups)
                await connection.execute(GO_ON, attempt.workspace_id, attempt.message_id)
            self._context.wakeups.wake("send")
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, Unsealable) as error:
            _log.warning("a provider could not be asked", attempt_id=attempt.id, error=repr(error))

    async def _ask(self, attempt: LockedAttempt) -> ProviderReport | None:
        row = await self._context.pool.fetchrow(ACCOUNT_LOAD, attempt.workspace_id, attempt.provider_account_id)
        if row is None or attempt.provider_message_id is None:
            return None
        account = open_account(row, self._context.vault)
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return await self._adapters[account.kind].poll(account, attempt.provider_message_id)
        except TimeoutError:
            return None
