"""Tests whether one JSON value contains another, like PostgreSQL's `@>`, within a limited number of steps.

An object contains another object if it contains every field of it. An array contains another array if every element of
the other is contained in one of its own elements, in any order and number. Scalars must be equal; numbers are compared
by value. Both sides come from callers, and comparing two arrays of objects costs the product of their lengths. The
step limit prevents that one event stops a worker.
"""

from dataclasses import dataclass
from typing import Any, Final

_SCANNED: Final = 16
"""How many scalars of a list are compared in the time of one other step."""


class TooManySteps(Exception):
    """The comparison needs more steps than it was given."""


@dataclass(slots=True)
class Steps:
    """The number of steps left. A step takes about half a microsecond."""

    left: int

    def spend(self, steps: int) -> None:
        """Use up steps. Raises TooManySteps if fewer are left."""
        self.left -= steps
        if self.left < 0:
            raise TooManySteps


def contains(value: Any, part: Any, steps: Steps) -> bool:
    """Return True if parsed JSON contains `part`. Uses up `steps`. Raises TooManySteps."""
    steps.spend(1)
    if isinstance(part, dict):
        return isinstance(value, dict) and all(
            name in value and contains(value[name], wanted, steps) for name, wanted in part.items()
        )
    if isinstance(part, list):
        return isinstance(value, list) and all(_has(value, wanted, steps) for wanted in part)
    return bool(value == part) and isinstance(value, bool) is isinstance(part, bool)


def _has(items: list[Any], wanted: Any, steps: Steps) -> bool:
    if isinstance(wanted, (dict, list)):
        return any(contains(item, wanted, steps) for item in items)
    steps.spend(1 + len(items) // _SCANNED)
    at = 0
    while True:
        try:
            at = items.index(wanted, at) + 1
        except ValueError:
            return False
        if isinstance(items[at - 1], bool) is isinstance(wanted, bool):  # In Python, 1 equals True
            return True
        steps.spend(1)
