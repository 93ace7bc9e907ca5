"""Divides the capacity of one process between workspaces, by dynamic thresholds.

A workspace may hold as much as is still free. So one busy workspace takes half of the capacity, two take a third each,
and there is always something free for the next one. No list of workspaces is needed. Source of the rule: Choudhury and
Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches" (1998).
"""

from fractions import Fraction
from typing import Final

LIVE_FACTOR: Final = Fraction(1)
"""A live workspace may hold this many times what is free."""
TEST_FACTOR: Final = Fraction(1, 8)
"""A test workspace may hold this part of what is free: alone, a ninth of the capacity."""


_LIVE: Final = LIVE_FACTOR.as_integer_ratio()
_TEST: Final = TEST_FACTOR.as_integer_ratio()


def room(held: int, free: int, *, live: bool) -> int:
    """Return how much more a workspace that holds `held` may take, while `free` of the whole capacity is unused.

    Never negative and never more than `free`. At least 1 if anything is free and the workspace holds nothing. The unit
    is the caller's: rows, bytes or calls.
    """
    if free <= 0:
        return 0
    part, whole = _LIVE if live else _TEST
    # held + allowed <= factor * (free - allowed), in integers: this runs for every delivery.
    allowed = (part * free - whole * held) // (part + whole)
    return max(allowed, 1 if held <= 0 else 0)


def has_room(held: int, free: int, *, live: bool) -> bool:
    """Return whether `room` is more than 0, with less arithmetic: this is asked several times for every delivery."""
    if free <= 0:
        return False
    part, whole = _LIVE if live else _TEST
    return held <= 0 or part * free - whole * held >= part + whole


def is_over(held: int, free: int, *, live: bool) -> bool:
    """Return whether a workspace holds more than it may, because others have taken what was free. One unit it may hold."""
    part, whole = _LIVE if live else _TEST
    return held > 1 and whole * held > part * free
