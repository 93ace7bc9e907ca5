"""Patterns of JSON Schemas: they match in linear time (with Rust's regular expressions) and have a limited size."""

import functools
import time
from dataclasses import dataclass
from typing import Any, Final

import jsonschema_rs

_SIZES: Final = tuple(kib * 1024 for kib in (1, 4, 16, 64, 160, 320))
_SHORT_CHARS: Final = 256
_BYTES_PER_STEP: Final = 128 * 1024
"""Compiled bytes for which one character takes one step at worst; mostly it takes far less."""


@dataclass(frozen=True, slots=True)
class Matcher:
    """A compiled pattern. `size` is an upper bound of its compiled bytes, which decide what a character costs at worst."""

    _validator: Any
    size: int

    def steps_at_worst(self, text: str) -> int:
        """Return how many steps a match of this text may take. A short text takes what it takes: at most 15 ms."""
        return max(0, len(text) - _SHORT_CHARS) * self.size // _BYTES_PER_STEP

    def match(self, text: str) -> tuple[bool, float]:
        """Tell whether the pattern occurs in the text, and how many seconds of CPU that took."""
        start_s = time.thread_time()
        valid: bool = self._validator.is_valid(text)
        return valid, time.thread_time() - start_s


@functools.lru_cache(maxsize=300)
def matcher(pattern: str) -> Matcher:
    """Compile a pattern. Raises ValueError if it is none, or larger than is possible."""
    for size in _SIZES:
        options = jsonschema_rs.RegexOptions(size_limit=size, dfa_size_limit=_SIZES[1])
        try:
            compiled = jsonschema_rs.Draft202012Validator({"pattern": pattern}, pattern_options=options)
        except jsonschema_rs.ValidationError:
            continue
        return Matcher(compiled, size)
    raise ValueError(
        f"the pattern {pattern[:100]!r} is none that we support (no look-around), or larger than "
        f"{_SIZES[-1]} bytes when compiled; repeat less, and bound lengths by minLength and maxLength"
    )
