"""Whether JSON holds other JSON, as PostgreSQL's `@>` has it, decided within a number of steps.

An object holds another whose every field it holds; an array holds another whose every element one of its own holds, in
any order and number; scalars are equal, numbers by their value. Both sides come from callers, and an array of objects
asked for in an array of objects costs their product: the steps keep one event from stopping a worker.
"""

from dataclasses import dataclass
from typing import Any, Final

_SCANNED: Final = 16
"""Scalars that a list is searched for in the time of one other step."""


class TooManySteps(Exception):
    """It was not decided within the steps that were given."""


@dataclass(slots=True)
class Steps:
    """How many steps are left; a step is about half a microsecond."""

    left: int

    def spend(self, steps: int) -> None:
        """Raises TooManySteps where so many are not left."""
        self.left -= steps
        if self.left < 0:
            raise TooManySteps


def holds(value: Any, part: Any, steps: Steps) -> bool:
    """Whether parsed JSON holds `part`; spends `steps`. Raises TooManySteps."""
    steps.spend(1)
    if isinstance(part, dict):
        return isinstance(value, dict) and all(
            name in value and holds(value[name], wanted, steps) for name, wanted in part.items()
        )
    if isinstance(part, list):
        return isinstance(value, list) and all(_has(value, wanted, steps) for wanted in part)
    return bool(value == part) and isinstance(value, bool) is isinstance(part, bool)


def _has(items: list[Any], wanted: Any, steps: Steps) -> bool:
    if isinstance(wanted, (dict, list)):
        return any(holds(item, wanted, steps) for item in items)
    steps.spend(1 + len(items) // _SCANNED)
    at = 0
    while True:
        try:
            at = items.index(wanted, at) + 1
        except ValueError:
            return False
        if isinstance(items[at - 1], bool) is isinstance(wanted, bool):  # Python finds 1 where true stands
            return True
        steps.spend(1)
