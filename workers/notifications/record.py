"""Records the results of calls in batches. A result stays in memory until it is committed.

A result that Postgres refuses stands alone in the end, so that it holds up no other: it is recorded without what the provider
said. If that is refused too, the attempt stays without a result, as that of a lost worker: its outcome becomes `unknown`.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Final

import structlog

from spine.kernel.metrics import message_attempts, provider_cost_micros, provider_seconds, results_set_apart
from spine.notifications.message_changes import MessageChanges
from spine.notifications.provider_calls import ProviderResult
from workers.connection import DedicatedConnection
from workers.database_errors import is_refusal
from workers.halving import write_in_parts
from workers.notifications.calls import CallResult, PreparedCall
from workers.notifications.decide import MessageDecider
from workers.pipeline import WorkerContext

_BATCH: Final = 64

_log = structlog.get_logger(__name__)


class MessageRecorder:
    """Takes results with `put`, and decides on their messages in the transaction that records them."""

    def __init__(
        self,
        context: WorkerContext,
        decider: MessageDecider,
        after_commit: Callable[[MessageChanges, Sequence[PreparedCall]], None],
        on_recorded: Callable[[CallResult], None],
    ) -> None:
        self._db = DedicatedConnection(context.pool)
        self._decider = decider
        self._after_commit = after_commit
        self._on_recorded = on_recorded
        self._results: dict[str, CallResult] = {}
        """By attempt, in the order of their ends."""
        self._has_results = asyncio.Event()

    @property
    def uncommitted(self) -> int:
        """How many results are not committed yet."""
        return len(self._results)

    def holds(self, attempt_id: str) -> bool:
        """Whether the call of this attempt has ended, and its result is not committed yet."""
        return attempt_id in self._results

    def put(self, result: CallResult) -> None:
        """Take a result; returns at once."""
        self._results[result.prepared.attempt_id] = result
        self._has_results.set()

    async def step(self) -> None:
        """Wait for results and commit one batch. After an error what is not committed is kept for the next step."""
        await self._has_results.wait()
        batch = list(islice(self._results.values(), _BATCH))
        await write_in_parts(batch, self._commit, self._commit_alone)
        if not self._results:
            self._has_results.clear()

    async def _commit(self, part: Sequence[CallResult]) -> None:
        async with self._db.connection() as connection:
            changes, calls = await self._decider.record(connection, {result.prepared.key: result for result in part})
        for result in part:
            self._forget(result)
        self._after_commit(changes, calls)

    async def _commit_alone(self, result: CallResult, error: Exception) -> None:
        """Record a refused result without the provider's words, or forget it."""
        attempt_id, provider = result.prepared.attempt_id, result.prepared.provider
        _log.error("a result was refused", attempt_id=attempt_id, provider=provider, error=repr(error))
        outcome = result.result
        bare = ProviderResult(outcome.outcome, None, outcome.failure, "result_refused", outcome.http_status)
        try:
            await self._commit([replace(result, result=bare)])
        except Exception as again:
            if not is_refusal(again):
                raise
            results_set_apart("put_off").inc()
            self._forget(result)
        else:
            results_set_apart("reduced").inc()

    def _forget(self, result: CallResult) -> None:
        prepared = result.prepared
        del self._results[prepared.attempt_id]
        channel = prepared.call.channel if prepared.call else "none"
        message_attempts(channel, prepared.provider, result.result.outcome).inc()
        provider_seconds(channel, prepared.provider).observe(result.duration_s)
        if prepared.charge.cost_micros is not None and result.result.outcome != "rejected":
            provider_cost_micros(channel, prepared.provider).inc(prepared.charge.cost_micros)
        self._on_recorded(result)
