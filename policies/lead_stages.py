"""The stages of a lead, and which may follow which (products.md 3.2)."""

from collections.abc import Mapping
from typing import Final, Literal

Stage = Literal["new", "contacted", "qualified", "converted", "lost", "dormant"]

TRANSITIONS: Final[Mapping[Stage, frozenset[Stage]]] = {
    "new": frozenset({"contacted", "qualified", "lost", "dormant"}),
    "contacted": frozenset({"qualified", "lost", "dormant"}),
    "qualified": frozenset({"converted", "lost", "dormant"}),
    "lost": frozenset({"contacted", "qualified"}),
    "dormant": frozenset({"contacted", "qualified"}),
    "converted": frozenset(),
}
OPEN: Final[frozenset[Stage]] = frozenset({"new", "contacted", "qualified"})
"""The stages of leads that somebody works on."""
_ASLEEP: Final[frozenset[Stage]] = frozenset({"lost", "dormant"})


def may_follow(stage: Stage, to: Stage) -> bool:
    """Return True if a lead in `stage` may become `to`."""
    return to in TRANSITIONS[stage]


def is_revival(stage: Stage, to: Stage) -> bool:
    """Return True if the move wakes a lead that was lost or dormant."""
    return stage in _ASLEEP and to in OPEN
