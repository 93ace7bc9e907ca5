"""What one rendering of a template may use: steps, time, and the size of every value.

A template and its variables come from one tenant and are rendered in an event loop that all tenants share. Therefore each
rendering has a budget. The steps decide, always in the same way; the time only protects a slow machine.
"""

import time
from typing import Any, ClassVar, Final

from spine.kernel.settings import TemplateSettings

MAX_CHARS: Final = 100_000
"""Characters of one value, and bytes of the output of one template."""
MAX_ELEMENTS: Final = 10_000
_MAX_BITS: Final = 2_048
"""Bits of one integer: enough for every float, and too few to multiply without end."""
_CHARS_PER_STEP: Final = 64
_CONTAINERS: Final = (list, tuple, dict, range)
_STEPS_PER_CLOCK: Final = 500
"""The clock is read once in this many steps."""


class Unrenderable(Exception):
    """A template cannot be parsed or rendered."""

    code: ClassVar[str] = "template_unrenderable"


class TooExpensive(Unrenderable):
    """A template needs more than its budget."""

    code = "template_too_expensive"


class Budget:
    """The budget of one rendering, or of several that happen together."""

    __slots__ = ("_clock_at", "_left", "_settings", "_until_s")

    def __init__(self, settings: TemplateSettings) -> None:
        self._settings = settings
        self._left = settings.template_max_steps
        self._clock_at = self._left - _STEPS_PER_CLOCK
        self._until_s = time.thread_time() + settings.template_max_ms / 1000

    @property
    def left(self) -> int:
        """Steps that are left."""
        return self._left

    def spend(self, steps: int) -> None:
        """Take steps from the budget. Raises TooExpensive if it has fewer, or if the time is over."""
        self._left -= steps
        if self._left < 0:
            raise TooExpensive(f"it takes more than {self._settings.template_max_steps} steps; loop over less")
        if self._left < self._clock_at:
            self._clock_at = self._left - _STEPS_PER_CLOCK
            if time.thread_time() > self._until_s:
                raise TooExpensive(f"it takes more than {self._settings.template_max_ms} ms; loop over less")

    def take(self, value: Any) -> None:
        """Pay for a value: one step for it, for each element at any depth, and for each 64 characters."""
        if isinstance(value, str):
            self.spend(1 + len(value) // _CHARS_PER_STEP)
        else:
            self.spend(weigh(value, self._left + 1) if isinstance(value, _CONTAINERS) else 1)


def weigh(value: Any, most: int) -> int:
    """Return the steps that a value costs. Stops counting beyond `most`."""
    total = 0
    rest = [value]
    while rest and total <= most:
        item = rest.pop()
        total += 1
        if isinstance(item, str):
            total += len(item) // _CHARS_PER_STEP
        elif isinstance(item, list | tuple):
            rest.extend(item)
        elif isinstance(item, dict):
            rest.extend(item)
            rest.extend(item.values())
        elif isinstance(item, range):
            total += max(0, item.stop - item.start)
    return total


def check_size(value: Any) -> None:
    """Raise TooExpensive if a value is larger than a template may make or use one."""
    if isinstance(value, str):
        if len(value) > MAX_CHARS:
            raise TooExpensive(f"a value would have {len(value)} characters; {MAX_CHARS} are possible")
    elif isinstance(value, list | tuple | dict):
        _check_elements(len(value))
    elif isinstance(value, range):
        _check_elements(value.stop - value.start)
    elif isinstance(value, int) and value.bit_length() > _MAX_BITS:
        raise TooExpensive(f"a number would have {value.bit_length()} bits; {_MAX_BITS} are possible")


def check_chars(chars: int) -> None:
    """Raise TooExpensive if a text of this length is longer than a value may be."""
    if chars > MAX_CHARS:
        raise TooExpensive(f"a value would have {chars} characters; {MAX_CHARS} are possible")


def _check_elements(elements: int) -> None:
    if elements > MAX_ELEMENTS:
        raise TooExpensive(f"a value would have {elements} elements; {MAX_ELEMENTS} are possible")
