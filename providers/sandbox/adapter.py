"""The sandbox: a fake provider whose recipients' addresses script the outcome (notifications.md, "Sandbox").

A number is `+910000000WSx`: W is the outcome on WhatsApp, S on SMS, x the person's reply. The sandbox stores the
attempts that it accepted, so that a repeated call counts once, with the receipts that will follow.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg
import orjson

from policies.fallback_values import FailureClass
from providers.protocol import Callback, CallbackResponse, signed_report
from providers.sandbox.calls import SandboxCall, SandboxCalls
from spine.directory.addresses import is_sandbox_address
from spine.notifications.account_credentials import ProviderAccount
from spine.notifications.provider_calls import ProviderCall, ProviderReport, ProviderResult

RECEIPT_S: Final = 0.06
"""The first receipt comes this long after the call; later receipts follow at the same interval."""
LATE_S: Final = 0.5
"""A late receipt comes this long after the step's wait."""
_TRANSIENT_FAILURES: Final = 2
_RATE_RETRY_AFTER_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class _ScriptedOutcome:
    """The outcome of one call. `reports` are (status, reported seconds after the call, due seconds after the call)."""

    result: ProviderResult
    reports: tuple[tuple[str, float, float], ...] = ()
    late: bool = False
    replies: bool = False
    before_response: bool = False


_ACCEPTED: Final = ProviderResult("accepted")
_UNKNOWN: Final = ProviderResult("unknown", None, "timeout", "timeout")


def _rejected(failure: FailureClass, code: str, retry_after_s: float | None = None) -> ProviderResult:
    return ProviderResult("rejected", None, failure, code, retry_after_s=retry_after_s)


_DELIVERED: Final = (("sent", 0.0, RECEIPT_S), ("delivered", 1.0, 2 * RECEIPT_S))
_PHONE_OUTCOMES: Final[dict[str, _ScriptedOutcome]] = {
    "0": _ScriptedOutcome(_ACCEPTED, _DELIVERED, replies=True),
    "1": _ScriptedOutcome(_ACCEPTED, (*_DELIVERED, ("read", 2.0, 3 * RECEIPT_S)), replies=True),
    "2": _ScriptedOutcome(_ACCEPTED, replies=True),
    "3": _ScriptedOutcome(_rejected("recipient", "recipient_unreachable")),
    "4": _ScriptedOutcome(_ACCEPTED, _DELIVERED, replies=True),
    "5": _ScriptedOutcome(_rejected("rate", "rate_limited", _RATE_RETRY_AFTER_S)),
    "6": _ScriptedOutcome(_UNKNOWN),
    "7": _ScriptedOutcome(_ACCEPTED, _DELIVERED, replies=True, before_response=True),
    "8": _ScriptedOutcome(
        _ACCEPTED,
        (
            ("delivered", 1.0, RECEIPT_S), ("delivered", 1.0, RECEIPT_S), ("sent", 0.0, 2 * RECEIPT_S),
            ("delivered", 2.0, 3 * RECEIPT_S), ("sent", 0.0, 3 * RECEIPT_S),
        ),
        replies=True,
    ),
    "9": _ScriptedOutcome(_ACCEPTED, (("delivered", 1.0, LATE_S),), late=True, replies=True),
}  # fmt: skip
_EMAIL_OUTCOMES: Final[dict[str, _ScriptedOutcome]] = {
    "delivered": _ScriptedOutcome(_ACCEPTED, _DELIVERED),
    "bounce": _ScriptedOutcome(_ACCEPTED, (("sent", 0.0, RECEIPT_S), ("failed", 1.0, 2 * RECEIPT_S))),
    "deferred": _PHONE_OUTCOMES["4"],
    "silent": _ScriptedOutcome(_ACCEPTED),
}
_UNKNOWN_RECIPIENT: Final = _ScriptedOutcome(_rejected("recipient", "not_a_sandbox_recipient"))
_REPLIES: Final = {"1": "Yes, that suits me", "2": "STOP"}


class SandboxProvider:
    """Keeps its state in Spine's database, as a real provider keeps its own. Without a pool it keeps none and reports nothing."""

    kind = "sandbox"

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record] | None") -> None:
        self._calls = SandboxCalls(pool) if pool is not None else None

    async def send(self, account: ProviderAccount, call: ProviderCall) -> ProviderResult:
        """Return the outcome that the recipient's address scripts, and store the receipts that will follow."""
        state = account.sandbox
        if state is not None and state.outage is True:
            return _rejected("connect", "connect_refused")
        if state is not None and state.outage == "slow_ms":
            await asyncio.sleep(state.slow_ms / 1000)
        scripted, reply = _scripted(call)
        if scripted is _PHONE_OUTCOMES["4"] and call.number <= _TRANSIENT_FAILURES:
            return _rejected("transient", "try_again")
        if scripted.result.outcome == "rejected":
            return scripted.result
        if state is not None and state.outage == "timeouts":
            return _UNKNOWN
        id = await self._store_call(account, call, scripted, reply)
        if scripted.before_response:
            await asyncio.sleep(3 * RECEIPT_S)  # the receipts arrive before this response
        return ProviderResult("accepted", id) if scripted.result.outcome == "accepted" else scripted.result

    def receive(self, account: ProviderAccount, callback: Callback) -> CallbackResponse:
        """Read the report of a callback that is signed as webhooks are."""
        return signed_report(account.credentials.secret, callback)

    async def check(self, account: ProviderAccount) -> ProviderResult | None:
        """Take any credentials, except during an outage."""
        if account.sandbox is not None and account.sandbox.outage is True:
            return _rejected("connect", "connect_refused")
        return _ACCEPTED

    async def poll(self, account: ProviderAccount, provider_message_id: str) -> ProviderReport | None:
        """Return None: a scripted silence stays one."""
        return None

    async def _store_call(
        self, account: ProviderAccount, call: ProviderCall, scripted: _ScriptedOutcome, reply: str | None
    ) -> str:
        """Store the call and its receipts. Returns the provider message id."""
        id = f"sbx-{call.attempt_id}"
        if self._calls is None:
            return id
        wait_s = float(call.wait_s) if scripted.late else 0.0
        now = datetime.now(UTC)
        receipts = [
            (_report(call, id, status, now, after_s), due_s + wait_s) for status, after_s, due_s in scripted.reports
        ]
        if reply is not None and scripted.replies:
            last_s = max((due_s for _, due_s in receipts), default=wait_s)
            receipts.append((_report(call, f"{id}-reply", "replied", now, 3.0, text=reply), last_s + RECEIPT_S))
        bodies = [(orjson.dumps(body), timedelta(seconds=due_s)) for body, due_s in receipts]
        await self._calls.put(
            SandboxCall(account.workspace_id, account.id, call.attempt_id, id, bodies, late=scripted.late)
        )
        return id


def _scripted(call: ProviderCall) -> tuple[_ScriptedOutcome, str | None]:
    """Return the scripted outcome of a recipient on a channel, and the text of the person's reply."""
    if not is_sandbox_address(call.to):
        return _UNKNOWN_RECIPIENT, None
    if call.channel == "email":
        return _EMAIL_OUTCOMES.get(call.to.partition("@")[0], _UNKNOWN_RECIPIENT), None
    digit = call.to[-3] if call.channel == "whatsapp" else call.to[-2]
    return _PHONE_OUTCOMES[digit], _REPLIES.get(call.to[-1])


def _report(
    call: ProviderCall, id: str, status: str, now: datetime, after_s: float, *, text: str | None = None
) -> dict[str, Any]:
    report = {
        "attempt_id": call.attempt_id,
        "id": id,
        "status": status,
        "timestamp": (now + timedelta(seconds=after_s)).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }
    if status == "failed":
        report["error"] = "mailbox_unavailable"
    return report | ({"text": text} if text is not None else {})
