"""Judges accounts by their receipts: one whose accepted messages are delivered late or never, against its usual share.

This is slower than a circuit breaker, and milder: a degraded account gets a smaller share of the messages and is still
called. If all accounts of a channel that can be judged look bad, it is the channel or the receipts, and nothing is moved.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

MIN_MESSAGES: Final = 20
"""An account with fewer accepted messages is not judged."""
MARGIN: Final = 0.15
"""The share of messages without a delivery may exceed the usual one by this much."""
SHARE: Final = 0.25
"""The part of its weight that a degraded account has."""


@dataclass(frozen=True, slots=True)
class Receipts:
    """The messages that an account took in some time, and how many of them were reported as delivered soon enough."""

    accepted: int
    delivered: int

    @property
    def missing(self) -> float:
        """The share that was not delivered; 0 without messages."""
        return 1 - self.delivered / self.accepted if self.accepted else 0.0


def degraded(recent: Mapping[str, Receipts], usual: Mapping[str, Receipts]) -> frozenset[str]:
    """Return the accounts of one channel that deliver worse than they usually do."""
    judged = {id for id, one in recent.items() if one.accepted >= MIN_MESSAGES}
    bad = {id for id in judged if recent[id].missing > _usual(usual.get(id)) + MARGIN}
    return frozenset() if bad == judged else frozenset(bad)


def _usual(receipts: Receipts | None) -> float:
    return receipts.missing if receipts is not None and receipts.accepted >= MIN_MESSAGES else 0.0
