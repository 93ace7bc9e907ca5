"""A message's way through an imagined world, decided by the very function that decides in the real one."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Literal

from policies.fallback import (
    Attempt,
    Class,
    Done,
    Fail,
    Outcome,
    Policy,
    Route,
    Send,
    Skip,
    Wait,
    World,
    is_success,
    next_step,
    waits,
)
from policies.receipts import Report, State, advance

Kind = Literal[
    "sent", "delivered", "read", "failed", "none", "late", "rejected", "rate_limited", "timeout", "transient"
]

RECEIPT_S: Final = 1.0
"""How long after a call its receipt comes, where nothing else is said."""
LATE_S: Final = 1.0
"""How long after the wait a late one comes."""
_MAX_LINES: Final = 500
_RATE_RETRY_AFTER_S: Final = 86_400.0
_TRANSIENT_TIMES: Final = 2


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of calls on a channel, and when its receipt comes; None for the usual time."""

    kind: Kind = "delivered"
    after_s: float | None = None


@dataclass(frozen=True, slots=True)
class SimulatedWorld:
    """A world to try a policy in. `down` are accounts whose provider does not answer at all."""

    routes: Mapping[int, Sequence[Route]]
    down: frozenset[str] = frozenset()
    fates: Mapping[str, Fate] = field(default_factory=dict)
    blocked: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a trace."""

    at_s: float
    action: Literal["skip", "send", "accepted", "rejected", "unknown", "wait", "receipt", "done", "fail"]
    step: int | None = None
    channel: str | None = None
    account_id: str | None = None
    reason: str | None = None
    until_s: float | None = None


@dataclass(slots=True)
class _Trial:
    """A simulation under way."""

    policy: Policy
    simulated: SimulatedWorld
    start: datetime
    now: datetime
    attempts: list[Attempt] = field(default_factory=list)
    coming: list[tuple[datetime, int, Report]] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    skipped: set[tuple[int, str]] = field(default_factory=set)
    held_until: datetime | None = None
    duplicate_possible: bool = False

    def say(self, line: Line) -> None:
        """Add to the trace, at this moment."""
        self.lines.append(replace(line, at_s=(self.now - self.start).total_seconds()))


def simulate(policy: Policy, simulated: SimulatedWorld, start: datetime) -> tuple[list[Line], str, bool]:
    """(trace, how it ends: `delivered`, `read`, `sent` or `failed`, whether the person may get it twice).

    Receipts that come after the end are in the trace too.
    """
    trial = _Trial(policy, simulated, start, start)
    deadline_at = start + timedelta(seconds=policy.deadline_s)
    while len(trial.lines) < _MAX_LINES:
        world = World(simulated.routes, simulated.blocked, deadline_at, trial.held_until)
        decision = next_step(policy, trial.attempts, world, trial.now)
        if not isinstance(decision, Done):
            _say_skipped(trial, decision.skipped)
        if isinstance(decision, Send):
            _call(trial, decision)
        elif isinstance(decision, Wait):
            _wait(trial, decision)
        elif isinstance(decision, Fail):
            trial.say(Line(0, "fail", reason=decision.why))
            break
        else:
            trial.say(Line(0, "done"))
            break
    for at, n, report in sorted(trial.coming, key=lambda one: one[0]):
        trial.now = max(trial.now, at)
        _receipt(trial, n, report)
    return trial.lines, _outcome(trial), trial.duplicate_possible


def _say_skipped(trial: _Trial, skipped: Iterable[Skip]) -> None:
    for skip in skipped:
        if (skip.step, skip.reason) not in trial.skipped:
            trial.skipped.add((skip.step, skip.reason))
            trial.say(Line(0, "skip", skip.step, skip.channel, reason=skip.reason))


def _call(trial: _Trial, decision: Send) -> None:
    step, account_id = trial.policy.steps[decision.step], decision.route.account_id
    fate = trial.simulated.fates.get(decision.channel, Fate())
    trial.say(Line(0, "send", decision.step, decision.channel, account_id, decision.why))
    outcome, failure, retry_after_s = _answer(trial, decision, fate)
    tries = 1 + sum(one.step == decision.step and one.account_id == account_id for one in trial.attempts)
    wait_until, retry_at = waits(step, outcome, failure, retry_after_s, tries, trial.now)
    state: State = {"accepted": "accepted", "rejected": "failed", "unknown": "sending"}[outcome]  # type: ignore[assignment]  # mypy widens
    trial.attempts.append(
        Attempt(
            decision.step,
            decision.number,
            decision.channel,
            account_id,
            decision.route.receipts,
            state,
            outcome,
            failure,
            wait_until,
            retry_at,
        )
    )
    trial.held_until = None
    trial.duplicate_possible = trial.duplicate_possible or decision.duplicate_possible
    trial.say(Line(0, outcome, decision.step, decision.channel, account_id, failure))
    if outcome == "accepted" and decision.route.receipts:
        trial.coming += _reports(trial, len(trial.attempts) - 1, fate, step.wait_s)


def _answer(trial: _Trial, decision: Send, fate: Fate) -> tuple[Outcome, Class | None, float | None]:
    if decision.route.account_id in trial.simulated.down:
        return "rejected", "connect", None
    if fate.kind == "rejected":
        return "rejected", "recipient", None
    if fate.kind == "rate_limited":
        return "rejected", "rate", _RATE_RETRY_AFTER_S
    if fate.kind == "timeout":
        return "unknown", "timeout", None
    if fate.kind == "transient" and decision.number <= _TRANSIENT_TIMES:
        return "rejected", "transient", None
    return "accepted", None, None


def _reports(trial: _Trial, n: int, fate: Fate, wait_s: int) -> list[tuple[datetime, int, Report]]:
    after_s = (
        fate.after_s if fate.after_s is not None else min(RECEIPT_S, wait_s / 2)
    )  # in time, unless it is said to be late
    if fate.kind == "late":
        after_s = wait_s + (fate.after_s if fate.after_s is not None else LATE_S)
    at = trial.now + timedelta(seconds=after_s)
    if fate.kind in {"delivered", "late", "transient"}:
        return [(at, n, "delivered")]
    if fate.kind == "sent":
        return [(at, n, "sent")]
    if fate.kind == "read":
        return [(at, n, "delivered"), (at, n, "read")]
    return [(at, n, "failed")] if fate.kind == "failed" else []


def _wait(trial: _Trial, decision: Wait) -> None:
    """Let time pass: to the next receipt, or to the end of the wait."""
    until_s = (decision.until - trial.start).total_seconds()
    trial.say(Line(0, "wait", reason=decision.why, until_s=until_s))
    coming = min(trial.coming, key=lambda one: one[0], default=None)
    if coming is not None and coming[0] < decision.until:
        trial.coming.remove(coming)
        trial.now = max(trial.now, coming[0])
        _receipt(trial, coming[1], coming[2])
        return
    trial.now = max(trial.now, decision.until)
    if decision.why == "quiet_hours":
        trial.held_until = decision.until


def _receipt(trial: _Trial, n: int, report: Report) -> None:
    attempt = trial.attempts[n]
    moved = advance(attempt.state, report)
    if moved is not None:
        failure = "recipient" if moved == "failed" else attempt.failure
        trial.attempts[n] = replace(attempt, state=moved, failure=failure)
    trial.say(Line(0, "receipt", attempt.step, attempt.channel, attempt.account_id, report))


def _outcome(trial: _Trial) -> str:
    states = {attempt.state for attempt in trial.attempts}
    for state in ("read", "delivered"):
        if state in states:
            return state
    return "sent" if any(is_success(trial.policy, attempt) for attempt in trial.attempts) else "failed"
