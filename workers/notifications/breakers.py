"""Reports the calls of this process to the breakers of their accounts, which all workers share.

A failure is reported at once, in batches. While an account has no failures its calls cost nothing: they are kept here
for the length of the window, so that the share of failures is right when the first one comes.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Final

import structlog

from policies.breaker import Breaker, Limits, Outcome, after, verdict_of
from spine.kernel.metrics import breaker_openings
from spine.kernel.settings import WorkSettings
from spine.notifications.breakers import (
    OPENED,
    AccountKey,
    breaker_of,
    change_event,
    lock_breakers,
    order_in_force,
    write_breakers,
)
from workers.connection import DedicatedConnection
from workers.notifications.calls import CallResult
from workers.pipeline import WorkerContext
from workers.webhooks.system_events import SystemEvent, write_system_events

_KEPT_CALLS: Final = 500
"""Calls of one account that are kept until they are reported or too old; the newest ones."""
_MAX_ACCOUNTS: Final = 10_000
_BATCH: Final = 200
_GAP_S: Final = 0.2
"""The shortest time between two reports."""

_log = structlog.get_logger(__name__)


def breaker_limits(work: WorkSettings) -> Limits:
    """Return the limits that the settings SPINE_BREAKER_… give."""
    return Limits(**{one.name: getattr(work, f"breaker_{one.name}") for one in fields(Limits)})


class BreakerReporter:
    """Takes results with `note`. Its loop is `step`."""

    def __init__(self, context: WorkerContext, limits: Limits, on_events: Callable[[], None]) -> None:
        self._db = DedicatedConnection(context.pool)
        self._limits = limits
        self._on_events = on_events
        self._calls: dict[AccountKey, deque[tuple[float, Outcome]]] = {}
        self._troubled: set[AccountKey] = set()
        """Accounts whose breaker is not closed, or has failures in its window: all their calls are reported."""
        self._urgent = asyncio.Event()

    def note(self, result: CallResult) -> None:
        """Take a call that has ended. Returns at once."""
        prepared = result.prepared
        if prepared.call is None:
            return  # nothing was called
        verdict = verdict_of(result.result.outcome, result.result.failure)
        key = prepared.key[0], prepared.account_id
        if verdict == "neutral" or (verdict == "alive" and key not in self._troubled):
            return
        if key not in self._calls and len(self._calls) >= _MAX_ACCOUNTS:
            self._calls.pop(next(iter(self._calls)))
        slow = result.duration_s >= self._limits.slow_call_s
        outcome = Outcome(verdict, slow, prepared.generation, result.result.code)
        self._calls.setdefault(key, deque(maxlen=_KEPT_CALLS)).append((time.monotonic(), outcome))
        if key in self._troubled or slow or verdict not in {"success", "alive"}:
            self._troubled.add(key)
            self._urgent.set()

    async def step(self) -> None:
        """Wait for calls that must be reported, and report one batch in one transaction. After an error they are kept."""
        await self._urgent.wait()
        await asyncio.sleep(_GAP_S)
        self._urgent.clear()
        keys = sorted(key for key in self._troubled if self._calls.get(key))[:_BATCH]
        if not keys:
            return
        oldest_s = time.monotonic() - self._limits.window_s
        taken = {key: self._calls.pop(key) for key in keys}
        try:
            outcomes = {key: [one for at_s, one in calls if at_s > oldest_s] for key, calls in taken.items()}
            async with self._db.connection() as connection, connection.transaction():
                breakers: dict[AccountKey, Breaker] = {}
                events: list[SystemEvent] = []
                for row in await lock_breakers(connection, keys):
                    if order_in_force(row, row["now"]) is not None:
                        continue  # the calls of that time do not count: nobody may be told what the operator has overruled
                    key, old = (row["workspace_id"], row["account_id"]), breaker_of(row)
                    breakers[key] = after(old, outcomes[key], row["now"], self._limits, random.random())  # noqa: S311  # no secret
                    told = change_event(row, old, breakers[key])
                    if told is not None:
                        events.append(SystemEvent(told[0], key[0], told[1], sequence=breakers[key].generation))
                await write_breakers(connection, breakers)
                await write_system_events(connection, events)
        except BaseException:
            for key, calls in taken.items():
                calls.extend(self._calls.pop(key, ()))
                self._calls[key] = calls
            self._urgent.set()
            raise
        self._after_commit(breakers, events)

    def _after_commit(self, breakers: dict[AccountKey, Breaker], events: Sequence[SystemEvent]) -> None:
        for key in self._troubled & breakers.keys():
            if breakers[key].state == "closed" and not any(one.failures or one.slow for one in breakers[key].window):
                self._troubled.discard(key)
        for event in events:
            _log.info("circuit changed", type=event.type.name, workspace_id=event.workspace_id)
            if event.type is OPENED:
                breaker_openings(event.data.channel, event.data.kind).inc()  # type: ignore[attr-defined]  # a Circuit
        if events:
            self._on_events()
        if any(self._calls.get(key) for key in self._troubled):
            self._urgent.set()
