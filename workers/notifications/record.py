"""Records the results of calls in batches. A result stays in memory until it is committed."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from spine.kernel.metrics import message_attempts, provider_cost_micros, provider_seconds
from spine.notifications.message_changes import MessageChanges
from workers.connection import DedicatedConnection
from workers.notifications.calls import CallResult, PreparedCall
from workers.notifications.decide import MessageDecider
from workers.pipeline import WorkerContext

_BATCH: Final = 64


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
        self._results: list[CallResult] = []
        self._has_results = asyncio.Event()
        self._in_commit = 0

    @property
    def uncommitted(self) -> int:
        """How many results are not committed yet."""
        return len(self._results) + self._in_commit

    def put(self, result: CallResult) -> None:
        """Take a result; returns at once."""
        self._results.append(result)
        self._has_results.set()

    async def step(self) -> None:
        """Wait for results and commit one batch. After an error the batch is kept for the next step."""
        await self._has_results.wait()
        self._has_results.clear()
        batch, self._results = self._results[:_BATCH], self._results[_BATCH:]
        if self._results:
            self._has_results.set()
        if not batch:
            return
        self._in_commit += len(batch)
        try:
            async with self._db.connection() as connection:
                results = {result.prepared.key: result for result in batch}
                changes, calls = await self._decider.record(connection, results)
        except BaseException:
            self._results = batch + self._results
            self._has_results.set()
            raise
        finally:
            self._in_commit -= len(batch)
        for result in batch:
            prepared = result.prepared
            channel = prepared.call.channel if prepared.call else "none"
            message_attempts(channel, prepared.provider, result.result.outcome).inc()
            provider_seconds(channel, prepared.provider).observe(result.duration_s)
            if prepared.charge.cost_micros is not None and result.result.outcome != "rejected":
                provider_cost_micros(channel, prepared.provider).inc(prepared.charge.cost_micros)
            self._on_recorded(result)
        self._after_commit(changes, calls)
