"""Makes the provider calls of committed attempts. No transaction is open during a call."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final

import asyncpg
import structlog

from providers.protocol import CALL_TIMEOUT_S, Provider
from spine.kernel.database_clock import DatabaseClock
from spine.kernel.wakeups import Wakeups
from spine.notifications.provider_calls import ProviderResult
from workers.notifications.calls import CallResult, PreparedCall
from workers.notifications.limits import SendLimits

_CALL_S: Final = CALL_TIMEOUT_S + 1
_SANDBOX_RECEIPT_DELAYS_S: Final = (0.07, 0.13, 0.19, 0.25)
"""How long after a call the sandbox's receipts are due. A wakeup is scheduled for each."""

_log = structlog.get_logger(__name__)


class MessageSender:
    """The calls in flight of one process. `record` takes the result of each; `on_call_end` is called after it."""

    def __init__(
        self,
        adapters: Mapping[str, Provider],
        wakeups: Wakeups,
        clock: DatabaseClock,
        limits: SendLimits,
        record: Callable[[CallResult], None],
        on_call_end: Callable[[], None],
    ) -> None:
        self._adapters = adapters
        self._wakeups = wakeups
        self._clock = clock
        self._limits = limits
        self._on_call_end = on_call_end
        self._record = record
        self._calls: dict[str, asyncio.Task[None]] = {}
        self._not_made: set[str] = set()

    @property
    def in_flight(self) -> int:
        """How many calls are in flight."""
        return len(self._calls)

    def is_in_flight(self, attempt_id: str) -> bool:
        """Whether this process makes the call of this attempt now."""
        return attempt_id in self._calls

    def was_not_made(self, attempt_id: str) -> bool:
        """Whether this process has left out the call of this attempt. Tells it once."""
        if attempt_id not in self._not_made:
            return False
        self._not_made.remove(attempt_id)
        return True

    def start(self, prepared: PreparedCall) -> None:
        """Start a call; returns at once."""
        self._limits.start(prepared)
        self._calls[prepared.attempt_id] = asyncio.create_task(self._call(prepared))

    async def cancel(self) -> None:
        """Cancel the calls in flight. Their attempts stay without an outcome, as those of a dead worker."""
        calls = list(self._calls.values())
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    async def _call(self, prepared: PreparedCall) -> None:
        start_s = time.perf_counter()
        try:
            if time.monotonic() + _CALL_S > prepared.lease_ends_s:
                # This process stood still. Another worker may have the message, and decides on the attempt.
                _log.warning("call not made: the lease ends too soon", attempt_id=prepared.attempt_id)
                self._not_made.add(prepared.attempt_id)
                return
            result = prepared.rejection or await self._send(prepared)
            self._record(CallResult(prepared, result, time.perf_counter() - start_s))
        finally:
            self._calls.pop(prepared.attempt_id, None)
            self._limits.end(prepared)
            self._on_call_end()
        if prepared.provider == "sandbox":
            now_s = self._clock.now_s()
            self._wakeups.wake_at("send", [now_s + delay_s for delay_s in _SANDBOX_RECEIPT_DELAYS_S])

    async def _send(self, prepared: PreparedCall) -> ProviderResult:
        assert prepared.account is not None
        assert prepared.call is not None
        if (prepared.provider == "sandbox") != (prepared.call.env == "test"):
            return ProviderResult("rejected", None, "config", "provider_not_allowed")
        try:
            async with asyncio.timeout(_CALL_S):
                return await self._adapters[prepared.provider].send(prepared.account, prepared.call)
        except TimeoutError:
            return ProviderResult("unknown", None, "timeout", "timeout")
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            # An error of this machine or of the sandbox's tables: it is not known whether the provider took the call.
            _log.warning("call broke", attempt_id=prepared.attempt_id, error=repr(error))
            return ProviderResult("unknown", None, "ours", "call_broke")
        except Exception:
            _log.exception("call broke", attempt_id=prepared.attempt_id)
            return ProviderResult("unknown", None, "ours", "call_broke")
