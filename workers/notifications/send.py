"""Makes the provider calls of committed attempts. No transaction is open during a call."""

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

import asyncpg
import structlog

from providers.protocol import CALL_TIMEOUT_S, Provider
from spine.kernel.wakeups import Wakeups
from spine.notifications.provider_calls import ProviderResult
from workers.notifications.calls import CallResult, PreparedCall

IN_FLIGHT_MAX: Final = 256
_SANDBOX_RECEIPT_DELAYS_S: Final = (0.07, 0.13, 0.19, 0.25)
"""How long after a call the sandbox's receipts are due. A wakeup is scheduled for each."""

_log = structlog.get_logger(__name__)


class MessageSender:
    """The calls in flight of one process. `record` takes the result of each."""

    def __init__(
        self, adapters: Mapping[str, Provider], wakeups: Wakeups, record: Callable[[CallResult], None]
    ) -> None:
        self._adapters = adapters
        self._wakeups = wakeups
        self._record = record
        self._calls: dict[str, asyncio.Task[None]] = {}

    @property
    def in_flight(self) -> int:
        """How many calls are in flight."""
        return len(self._calls)

    def capacity(self) -> int:
        """How many more calls may start."""
        return IN_FLIGHT_MAX - len(self._calls)

    def is_in_flight(self, attempt_id: str) -> bool:
        """Whether this process makes the call of this attempt now."""
        return attempt_id in self._calls

    def start(self, prepared: PreparedCall) -> None:
        """Start a call; returns at once."""
        self._calls[prepared.attempt_id] = asyncio.create_task(self._call(prepared))

    async def _call(self, prepared: PreparedCall) -> None:
        start_s = time.perf_counter()
        try:
            result = prepared.rejection or await self._send(prepared)
            self._record(CallResult(prepared, result, time.perf_counter() - start_s))
        finally:
            self._calls.pop(prepared.attempt_id, None)
        if prepared.provider == "sandbox":
            now_s = datetime.now(UTC).timestamp()
            self._wakeups.wake_at("send", [now_s + delay_s for delay_s in _SANDBOX_RECEIPT_DELAYS_S])

    async def _send(self, prepared: PreparedCall) -> ProviderResult:
        assert prepared.account is not None
        assert prepared.call is not None
        if (prepared.provider == "sandbox") != (prepared.call.env == "test"):
            return ProviderResult("rejected", None, "config", "provider_not_allowed")
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S + 1):
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
