"""What the doctor says: one finding per thing looked at, with its mend where something is wrong."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """`warn` works and should be mended; `fail` does not work, or breaks a promise."""

    level: Level
    part: str
    saw: str
    mend: str = ""


def ok(part: str, saw: str) -> Finding:
    """As it should be."""
    return Finding("ok", part, saw)


def warn(part: str, saw: str, mend: str) -> Finding:
    """Works, and should be mended."""
    return Finding("warn", part, saw, mend)


def fail(part: str, saw: str, mend: str) -> Finding:
    """Does not work, or breaks a promise."""
    return Finding("fail", part, saw, mend)


def by_limits(part: str, saw: str, value: float, warn_above: float, fail_above: float, mend: str) -> Finding:
    """A figure that should be small."""
    if value > fail_above:
        return fail(part, saw, mend)
    return warn(part, saw, mend) if value > warn_above else ok(part, saw)
