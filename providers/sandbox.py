"""The sandbox: a provider like any other, whose recipients carry their own fate (notifications.md, "Sandbox").

A number is `+910000000WSx`: W is its fate on WhatsApp, S on SMS, x what the person does. It remembers the attempts that
it took, so that a repeated call counts once, and writes the receipts that it owes in the same statement as the call.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg
import orjson

from policies.fallback_values import FailureClass
from providers.protocol import signed_report
from spine.directory.addresses import is_sandbox_address
from spine.notifications.provider_accounts import ProviderAccount
from spine.notifications.provider_calls import ProviderCall, ProviderReport, ProviderResult

RECEIPT_S: Final = 0.06
"""How long after the call the first receipt comes; later ones follow at the same distance."""
LATE_S: Final = 0.5
"""How long after the wait a late receipt comes."""
_TRANSIENT_TIMES: Final = 2
_RATE_RETRY_AFTER_S: Final = 86_400.0

# Takes the call and what it owes; of a repeated call nothing, but the id that it was given the first time.
_TAKE: Final = """
    WITH taken AS (
        INSERT INTO spine.sandbox_calls (workspace_id, attempt_id, provider_message_id) VALUES ($1, $2, $3)
        ON CONFLICT DO NOTHING RETURNING attempt_id
    ), owed AS (
        INSERT INTO spine.sandbox_receipts (workspace_id, provider_account_id, attempt_id, body, late, due_at)
        SELECT $1, $4, $2, u.body, u.late, now() + u.after
          FROM taken, unnest($5::bytea[], $6::boolean[], $7::interval[]) AS u (body, late, after)
    )
    SELECT coalesce((SELECT provider_message_id FROM spine.sandbox_calls WHERE workspace_id = $1 AND attempt_id = $2), $3)
"""


@dataclass(frozen=True, slots=True)
class _Fate:
    """What becomes of one call. `reports` are (status, reported seconds after the call, due seconds after the call)."""

    result: ProviderResult
    reports: tuple[tuple[str, float, float], ...] = ()
    late: bool = False
    answers: bool = False
    before_response: bool = False


_ACCEPTED: Final = ProviderResult("accepted")
_UNKNOWN: Final = ProviderResult("unknown", None, "timeout", "timeout")


def _rejected(failure: FailureClass, code: str, retry_after_s: float | None = None) -> ProviderResult:
    return ProviderResult("rejected", None, failure, code, retry_after_s=retry_after_s)


_DELIVERED: Final = (("sent", 0.0, RECEIPT_S), ("delivered", 1.0, 2 * RECEIPT_S))
_FATES: Final[dict[str, _Fate]] = {
    "0": _Fate(_ACCEPTED, _DELIVERED, answers=True),
    "1": _Fate(_ACCEPTED, (*_DELIVERED, ("read", 2.0, 3 * RECEIPT_S)), answers=True),
    "2": _Fate(_ACCEPTED, answers=True),
    "3": _Fate(_rejected("recipient", "recipient_unreachable")),
    "4": _Fate(_ACCEPTED, _DELIVERED, answers=True),
    "5": _Fate(_rejected("rate", "rate_limited", _RATE_RETRY_AFTER_S)),
    "6": _Fate(_UNKNOWN),
    "7": _Fate(_ACCEPTED, _DELIVERED, answers=True, before_response=True),
    "8": _Fate(
        _ACCEPTED,
        (
            ("delivered", 1.0, RECEIPT_S), ("delivered", 1.0, RECEIPT_S), ("sent", 0.0, 2 * RECEIPT_S),
            ("delivered", 2.0, 3 * RECEIPT_S), ("sent", 0.0, 3 * RECEIPT_S),
        ),
        answers=True,
    ),
    "9": _Fate(_ACCEPTED, (("delivered", 1.0, LATE_S),), late=True, answers=True),
}  # fmt: skip
_MAIL: Final[dict[str, _Fate]] = {
    "delivered": _Fate(_ACCEPTED, _DELIVERED),
    "bounce": _Fate(_ACCEPTED, (("sent", 0.0, RECEIPT_S), ("failed", 1.0, 2 * RECEIPT_S))),
    "deferred": _FATES["4"],
    "silent": _Fate(_ACCEPTED),
}
_NOBODY: Final = _Fate(_rejected("recipient", "not_a_sandbox_recipient"))
_SAYS: Final = {"1": "Yes, that suits me", "2": "STOP"}


class Sandbox:
    """Keeps its memory in the database, as a provider would in its own."""

    kind = "sandbox"

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool

    async def send(self, account: ProviderAccount, call: ProviderCall) -> ProviderResult:
        """Let the recipient's fate take its course."""
        state = account.sandbox
        if state is not None and state.outage is True:
            return _rejected("connect", "connect_refused")
        if state is not None and state.outage == "slow_ms":
            await asyncio.sleep(state.slow_ms / 1000)
        fate, wish = _fate(call)
        if fate is _FATES["4"] and call.number <= _TRANSIENT_TIMES:
            return _rejected("transient", "try_again")
        if fate.result.outcome == "rejected":
            return fate.result
        if state is not None and state.outage == "timeouts":
            return _UNKNOWN
        id = await self._take(account, call, fate, wish)
        if fate.before_response:
            await asyncio.sleep(3 * RECEIPT_S)  # its receipts overtake this answer
        return ProviderResult("accepted", id) if fate.result.outcome == "accepted" else fate.result

    def reports(
        self, account: ProviderAccount, secret: str, headers: Mapping[str, str], body: bytes
    ) -> list[ProviderReport]:
        """As any provider that signs as webhooks are signed."""
        return signed_report(secret, headers, body)

    async def _take(self, account: ProviderAccount, call: ProviderCall, fate: _Fate, wish: str | None) -> str:
        id = f"sbx-{call.attempt_id}"
        wait_s = float(call.wait_s) if fate.late else 0.0
        now = datetime.now(UTC)
        owed = [(_report(call, id, status, now, after_s), due_s + wait_s) for status, after_s, due_s in fate.reports]
        if wish is not None and fate.answers:
            last_s = max((due_s for _, due_s in owed), default=wait_s)
            owed.append((_report(call, f"{id}-reply", "replied", now, 3.0, text=wish), last_s + RECEIPT_S))
        taken: str = await self._pool.fetchval(
            _TAKE, account.workspace_id, call.attempt_id, id, account.id,
            [orjson.dumps(body) for body, _ in owed], [fate.late] * len(owed), [timedelta(seconds=s) for _, s in owed],
        )  # fmt: skip
        return taken


def _fate(call: ProviderCall) -> tuple[_Fate, str | None]:
    """The fate of a recipient on a channel, and what the person says."""
    if not is_sandbox_address(call.to):
        return _NOBODY, None
    if call.channel == "email":
        return _MAIL.get(call.to.partition("@")[0], _NOBODY), None
    digit = call.to[-3] if call.channel == "whatsapp" else call.to[-2]
    return _FATES[digit], _SAYS.get(call.to[-1])


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
