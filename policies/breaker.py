"""Circuit breakers: when an account of a provider is not to be called, and when it is tried again (notifications.md).

One breaker stands before each provider account. Workers report what its calls came to; these functions say what follows.
Times are given from outside, and so is the jitter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal

State = Literal["closed", "open", "half_open", "misconfigured"]
Verdict = Literal["success", "failure", "connect", "config", "neutral", "alive"]

_VERDICTS: Final[Mapping[str, Verdict]] = {
    "connect": "connect",
    "transient": "failure",
    "timeout": "failure",
    "config": "config",
    "recipient": "alive",
    "rate": "neutral",
    "recipient_rate": "neutral",
    "policy": "neutral",
    "content": "neutral",
    "ours": "neutral",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """When a breaker opens, and for how long."""

    window_s: int = 30
    min_calls: int = 20
    failure_rate: float = 0.5
    slow_rate: float = 0.8
    slow_call_s: float = 10.0
    connect_failures: int = 5
    """So many refused connections in a row open it, however few calls there were."""
    open_s: float = 30.0
    max_open_s: float = 600.0
    probe_successes: int = 3
    recheck_s: float = 5.0
    """How soon a message looks again at a breaker that another message probes."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """The calls that ended within one second of the epoch."""

    second: int
    calls: int = 0
    failures: int = 0
    slow: int = 0


@dataclass(frozen=True, slots=True)
class Breaker:
    """The state that all workers share. Each change of `state` begins a new generation."""

    state: State = "closed"
    generation: int = 0
    opened_until: datetime | None = None
    reason: str | None = None
    openings: int = 0
    """Openings since it was last closed by its own probes; each doubles the time that it stays open."""
    successes: int = 0
    """Probes that succeeded in a row."""
    connect_failures: int = 0
    window: tuple[Bucket, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """A call that has ended, and the generation that it started under."""

    verdict: Verdict
    slow: bool
    generation: int
    detail: str | None = None


def verdict_of(outcome: str, failure: str | None) -> Verdict:
    """Return what a call says of its account. A recipient that cannot be reached proves that the provider answers."""
    if outcome == "accepted":
        return "success"
    if outcome == "unknown":
        return "failure"
    return _VERDICTS.get(failure or "", "neutral")


def after(breaker: Breaker, outcomes: Sequence[Outcome], now: datetime, limits: Limits, jitter: float) -> Breaker:
    """Return the breaker after these calls. `jitter` lengthens an opening by up to a tenth: 0 to 1.

    Calls that started under an earlier generation say nothing of this one.
    """
    for outcome in outcomes:
        if outcome.generation == breaker.generation:
            breaker = _after_one(breaker, outcome, now, limits, jitter)
    return breaker


def _after_one(breaker: Breaker, outcome: Outcome, now: datetime, limits: Limits, jitter: float) -> Breaker:
    if outcome.verdict == "config":
        if breaker.state == "misconfigured":
            return breaker
        return replace(_begin(breaker, "misconfigured"), reason=outcome.detail or "config")
    if outcome.verdict == "neutral" or breaker.state in {"open", "misconfigured"}:
        return breaker
    good = outcome.verdict in {"success", "alive"}
    if breaker.state == "half_open":
        if not good:
            return _open(breaker, "probe_failed", now, limits, jitter)
        if breaker.successes + 1 < limits.probe_successes:
            return replace(breaker, successes=breaker.successes + 1)
        return replace(_begin(breaker, "closed"), openings=0)
    if outcome.verdict == "alive":
        return breaker
    breaker = _count(breaker, outcome, now, limits)
    reason = _why_open(breaker, limits)
    return breaker if reason is None else _open(breaker, reason, now, limits, jitter)


def _count(breaker: Breaker, outcome: Outcome, now: datetime, limits: Limits) -> Breaker:
    second = int(now.timestamp())
    kept = [bucket for bucket in breaker.window if bucket.second > second - limits.window_s]
    last = kept.pop() if kept and kept[-1].second == second else Bucket(second)
    failed = outcome.verdict != "success"
    kept.append(Bucket(second, last.calls + 1, last.failures + failed, last.slow + outcome.slow))
    streak = breaker.connect_failures + 1 if outcome.verdict == "connect" else 0
    return replace(breaker, window=tuple(kept), connect_failures=streak)


def _why_open(breaker: Breaker, limits: Limits) -> str | None:
    if breaker.connect_failures >= limits.connect_failures:
        return "connect_failures"
    calls = sum(bucket.calls for bucket in breaker.window)
    if calls < limits.min_calls:
        return None
    if sum(bucket.failures for bucket in breaker.window) >= limits.failure_rate * calls:
        return "failure_rate"
    if sum(bucket.slow for bucket in breaker.window) >= limits.slow_rate * calls:
        return "slow_calls"
    return None


def _open(breaker: Breaker, reason: str, now: datetime, limits: Limits, jitter: float) -> Breaker:
    open_s = min(limits.open_s * 2**breaker.openings, limits.max_open_s) * (1 + jitter / 10)
    until = now + timedelta(seconds=open_s)
    opened = replace(_begin(breaker, "open"), opened_until=until, reason=reason)
    return replace(opened, openings=breaker.openings + 1)


def _begin(breaker: Breaker, state: State) -> Breaker:
    """A new generation, which has counted nothing yet."""
    return Breaker(state, breaker.generation + 1, openings=breaker.openings)
