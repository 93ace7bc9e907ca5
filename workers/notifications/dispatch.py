"""The message dispatcher: sends messages as a pipeline beside webhook delivery, over a queue of its own.

    wakeup "send" ─► claim due rows (lease) ─► decide: attempt rows, waits, ends (one transaction) ─► calls ─┐
                               ▲                                                                             ▼
                               └──── due again ◄──── record results and decide (one transaction) ◄──── results

Promised: an attempt is committed before its call, and no transaction is open during a call. The rows of a dead worker
come due again: an attempt without an outcome is repeated under its own id if the provider counts that once, and has an
unknown outcome elsewhere. Receipts change messages under the same row lock, so a timer and a receipt take turns.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from products.notifications.providers import open_adapters
from spine.kernel.wakeups import WakeupKind
from spine.notifications.message_changes import MessageChanges
from workers.notifications.breakers import BreakerReporter, breaker_limits
from workers.notifications.calls import CallResult, PreparedCall
from workers.notifications.claim import MessageClaimer, lease_of
from workers.notifications.decide import MessageDecider
from workers.notifications.limits import SendLimits
from workers.notifications.polls import Poller
from workers.notifications.record import MessageRecorder
from workers.notifications.send import MessageSender
from workers.pipeline import WorkerContext, run_forever

_DUE_NOW_S: Final = 0.05
"""A message that is due within this time is claimed at once."""


class MessageDispatcher:
    """The message pipeline of one process."""

    def __init__(self, context: WorkerContext) -> None:
        self._wakeups = context.wakeups
        self._clock = context.heartbeat.clock
        work = context.work
        limits = SendLimits(work.max_sends, work.max_sends_per_account)
        lease = lease_of(work.lease_s)
        adapters = open_adapters(context.pool, context.http_client, context.public_url)
        self.sender = MessageSender(adapters, context.wakeups, self._clock, limits, self._record, self._on_call_end)
        self.poller = Poller(context, adapters)
        breakers = breaker_limits(work)
        decider = MessageDecider(
            context.vault,
            context.worker_id,
            lease,
            limits,
            lambda attempt_id: self.sender.is_in_flight(attempt_id) or self.recorder.holds(attempt_id),
            self.sender.was_not_made,
            context.work,
            breakers.recheck_s,
        )
        self.breakers = BreakerReporter(context, breakers, lambda: context.wakeups.wake("relay"))
        self.claimer = MessageClaimer(context, decider, limits, lease, self._after_commit)
        self.recorder = MessageRecorder(context, decider, self._after_commit, self.breakers.note)

    def on_wakeup(self, kind: WakeupKind) -> None:
        """Claim soon if messages are due."""
        if kind == "send":
            self.claimer.wake()

    async def run(self) -> None:
        """Work until cancelled."""
        self.claimer.wake()
        async with asyncio.TaskGroup() as loops:
            loops.create_task(run_forever("send claim", self.claimer.step))
            loops.create_task(run_forever("send claim beside", self.claimer.step_new))
            loops.create_task(run_forever("send record", self.recorder.step))
            loops.create_task(run_forever("breakers", self.breakers.step))

    async def drain(self, timeout_s: float) -> None:
        """Claim nothing more, wait for the calls in flight, record them, and cancel those that last too long."""
        self.claimer.stop()
        until_s = time.monotonic() + timeout_s
        while (self.sender.in_flight or self.recorder.uncommitted) and time.monotonic() < until_s:  # noqa: ASYNC110  # two counters, one wait
            await asyncio.sleep(0.01)
        await self.sender.cancel()
        await self.poller.stop()

    def _record(self, result: CallResult) -> None:
        self.recorder.put(result)

    def _on_call_end(self) -> None:
        self.claimer.on_call_end()

    def _after_commit(self, changes: MessageChanges, calls: Sequence[PreparedCall]) -> None:
        """Start the calls, count, and wake the pipelines that have work."""
        for prepared in calls:
            self.sender.start(prepared)
        self.poller.start(changes.polls)
        if changes.accounts_waited_for:
            self.claimer.note_waiting(changes.accounts_waited_for)
        changes.record_metrics()
        if changes.has_events:
            self._wakeups.wake("relay")
        now_s = self._clock.now_s()
        times_s = [due_at.timestamp() for due_at in changes.due_times]
        if any(at_s <= now_s + _DUE_NOW_S for at_s in times_s):
            self._wakeups.wake("send")
            self.claimer.wake()
        later = [at_s for at_s in times_s if at_s > now_s]
        if later:
            self._wakeups.wake_at("send", later)
