"""Applies receipts to an attempt: its rank only rises, and a later delivery overrides a failure (failure cases 1 to 4)."""

from typing import Final, Literal

State = Literal["sending", "accepted", "sent", "delivered", "read", "failed"]
Report = Literal["sent", "delivered", "read", "failed"]

RANK: Final[dict[str, int]] = {"sending": 0, "failed": 1, "accepted": 2, "sent": 3, "delivered": 4, "read": 5}
"""`failed` ranks below the states that a provider may still report after it. Only `advance` moves an attempt to it."""

_DELIVERED: Final = RANK["delivered"]


def advance(state: State, report: Report) -> State | None:
    """Return the state after this report; None if the state does not change. The order of the reports does not matter.

    Only `failed` depends on the order: a failure after `sent` is accepted. After it only `delivered` and `read` are
    accepted, because a late `sent` contains no new information.
    """
    if report == "failed":
        return None if state == "failed" or RANK[state] >= _DELIVERED else "failed"
    if state == "failed" and RANK[report] < _DELIVERED:
        return None
    return report if RANK[report] > RANK[state] else None


def succeeded(state: State, success: Literal["sent", "delivered"]) -> bool:
    """Return True if this state meets the policy's success. Receipts decide, never an HTTP status."""
    if success == "sent":
        return RANK[state] >= RANK["accepted"]
    return RANK[state] >= _DELIVERED
