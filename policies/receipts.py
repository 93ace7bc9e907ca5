"""What a receipt changes: an attempt's rank only rises, and a later delivery overrides a failure (failure cases 1 to 4)."""

from typing import Final, Literal

State = Literal["sending", "accepted", "sent", "delivered", "read", "failed"]
Report = Literal["sent", "delivered", "read", "failed"]

RANK: Final[dict[str, int]] = {"sending": 0, "failed": 1, "accepted": 2, "sent": 3, "delivered": 4, "read": 5}
"""`failed` stands below what a provider may still report after it; a failure itself moves an attempt by `advance` only."""

_DELIVERED: Final = RANK["delivered"]


def advance(state: State, report: Report) -> State | None:
    """The state after this report; None when it changes nothing. Any order of the same reports ends in the same state.

    Only one pair depends on what came first, and not for long: a failure after `sent` is believed, and after it only
    `delivered` or `read` are, since a `sent` that comes late says nothing new.
    """
    if report == "failed":
        return None if state == "failed" or RANK[state] >= _DELIVERED else "failed"
    if state == "failed" and RANK[report] < _DELIVERED:
        return None
    return report if RANK[report] > RANK[state] else None


def succeeded(state: State, success: Literal["sent", "delivered"]) -> bool:
    """Whether an attempt in this state is what the policy calls success. Judged by receipts, never by HTTP."""
    if success == "sent":
        return RANK[state] >= RANK["accepted"]
    return RANK[state] >= _DELIVERED
