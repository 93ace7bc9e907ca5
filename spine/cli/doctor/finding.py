"""The result of one check: its level, the component, the observation, and the remedy if something is wrong."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """`warn`: the component works and should be repaired. `fail`: it does not work, or breaks a promise."""

    level: Level
    component: str
    observed: str
    remedy: str = ""


def ok(component: str, observed: str) -> Finding:
    """Return a finding without a problem."""
    return Finding("ok", component, observed)


def warn(component: str, observed: str, remedy: str) -> Finding:
    """Return a finding about a component that works and should be repaired."""
    return Finding("warn", component, observed, remedy)


def fail(component: str, observed: str, remedy: str) -> Finding:
    """Return a finding about a component that does not work or breaks a promise."""
    return Finding("fail", component, observed, remedy)


def by_limits(
    component: str, observed: str, value: float, warn_above: float, fail_above: float, remedy: str
) -> Finding:
    """Judge a value that should be small against two limits."""
    if value > fail_above:
        return fail(component, observed, remedy)
    return warn(component, observed, remedy) if value > warn_above else ok(component, observed)
