"""Simulates a message under a policy with scripted outcomes. The production decision function makes every decision."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from policies.fallback import is_success, next_step, waits
from policies.fallback_values import (
    Attempt,
    Breakers,
    Done,
    Fail,
    FailureClass,
    Outcome,
    Policy,
    Poll,
    Send,
    Skip,
    Wait,
    World,
)
from policies.receipts import Report, State, advance
from policies.simulation_values import ScriptedOutcome, SimulatedWorld, TraceEntry
from policies.windows import dlt_window_closed

RECEIPT_S: Final = 1.0
"""Seconds from a call to its receipt, unless the scripted outcome says otherwise."""
LATE_S: Final = 1.0
"""Seconds from the end of the step's wait to a late receipt."""
_MAX_ENTRIES: Final = 500
_RATE_RETRY_AFTER_S: Final = 86_400.0
_TRANSIENT_TIMES: Final = 2
_STATE: Final[dict[Outcome, State]] = {"accepted": "accepted", "rejected": "failed", "unknown": "sending"}


@dataclass(slots=True)
class _Simulation:
    """The state of a running simulation."""

    policy: Policy
    simulated: SimulatedWorld
    start: datetime
    now: datetime
    attempts: list[Attempt] = field(default_factory=list)
    pending: list[tuple[datetime, int, Report]] = field(default_factory=list)
    """Receipts that have not arrived: time, index of the attempt, report."""
    trace: list[TraceEntry] = field(default_factory=list)
    skipped: set[tuple[int, str]] = field(default_factory=set)
    held_until: datetime | None = None
    duplicate_possible: bool = False

    def record(self, entry: TraceEntry) -> None:
        """Append an entry to the trace, with the current time."""
        self.trace.append(replace(entry, at_s=(self.now - self.start).total_seconds()))


def simulate(policy: Policy, simulated: SimulatedWorld, start: datetime) -> tuple[list[TraceEntry], str, bool]:
    """Return (trace, final state: `delivered`, `read`, `sent` or `failed`, whether a duplicate is possible).

    The trace includes receipts that arrive after the end.
    """
    run = _Simulation(policy, simulated, start, start)
    while len(run.trace) < _MAX_ENTRIES:
        breakers = Breakers(_times(start, simulated.open_s))
        decision = next_step(policy, run.attempts, _world(run), run.now, breakers, simulated.quotas)
        if not isinstance(decision, Done):
            _record_skipped(run, decision.skipped)
        if isinstance(decision, Send):
            _call(run, decision)
        elif isinstance(decision, Wait):
            _wait(run, decision)
        elif isinstance(decision, Poll):
            _poll(run, decision)
        elif isinstance(decision, Fail):
            run.record(TraceEntry(0, "fail", reason=decision.why))
            break
        else:
            run.record(TraceEntry(0, "done"))
            break
    for at, n, report in sorted(run.pending, key=lambda receipt: receipt[0]):
        run.now = max(run.now, at)
        _receive(run, n, report)
    return run.trace, _final_state(run), run.duplicate_possible


def _times(start: datetime, seconds: Mapping[str, float]) -> dict[str, datetime]:
    return {account_id: start + timedelta(seconds=s) for account_id, s in seconds.items()}


def _world(run: _Simulation) -> World:
    simulated = run.simulated
    blocked = dict(simulated.blocked)
    if simulated.sms is not None and dlt_window_closed("sms", *simulated.sms, run.now):
        blocked.setdefault("sms", "window_closed")
    deadline_at = run.start + timedelta(seconds=run.policy.deadline_s)
    free_at = _times(run.start, simulated.recipient_free_s)
    return World(simulated.routes, blocked, deadline_at, run.held_until, free_at)


def _record_skipped(run: _Simulation, skipped: Iterable[Skip]) -> None:
    for skip in skipped:
        if (skip.step, skip.reason) not in run.skipped:
            run.skipped.add((skip.step, skip.reason))
            run.record(TraceEntry(0, "skip", skip.step, skip.channel, reason=skip.reason))


def _call(run: _Simulation, decision: Send) -> None:
    step, account_id = run.policy.steps[decision.step], decision.route.account_id
    scripted = run.simulated.outcomes.get(decision.channel, ScriptedOutcome())
    run.record(TraceEntry(0, "send", decision.step, decision.channel, account_id, decision.why))
    outcome, failure, retry_after_s = _response(run, decision, scripted)
    tries = 1 + sum(attempt.step == decision.step and attempt.account_id == account_id for attempt in run.attempts)
    wait_until, retry_at = waits(step, outcome, failure, retry_after_s, tries, run.now)
    run.attempts.append(
        Attempt(
            decision.step,
            decision.number,
            decision.channel,
            account_id,
            decision.route.receipts,
            _STATE[outcome],
            outcome,
            failure,
            wait_until,
            retry_at,
            account_id in run.simulated.polls and outcome == "accepted",
        )
    )
    run.held_until = None
    run.duplicate_possible = run.duplicate_possible or decision.duplicate_possible
    run.record(TraceEntry(0, outcome, decision.step, decision.channel, account_id, failure))
    if outcome == "accepted" and decision.route.receipts:
        run.pending += _receipts(run, len(run.attempts) - 1, scripted, step.wait_s)


def _response(
    run: _Simulation, decision: Send, scripted: ScriptedOutcome
) -> tuple[Outcome, FailureClass | None, float | None]:
    if decision.route.account_id in run.simulated.down:
        return "rejected", "connect", None
    if scripted.kind == "rejected":
        return "rejected", "recipient", None
    if scripted.kind == "rate_limited":
        return "rejected", "rate", _RATE_RETRY_AFTER_S
    if scripted.kind == "timeout":
        return "unknown", "timeout", None
    if scripted.kind == "transient" and decision.number <= _TRANSIENT_TIMES:
        return "rejected", "transient", None
    return "accepted", None, None


def _receipts(run: _Simulation, n: int, scripted: ScriptedOutcome, wait_s: int) -> list[tuple[datetime, int, Report]]:
    if scripted.kind == "late":
        after_s = wait_s + (LATE_S if scripted.after_s is None else scripted.after_s)
    else:
        # Half of the wait at most, so that the receipt arrives in time.
        after_s = min(RECEIPT_S, wait_s / 2) if scripted.after_s is None else scripted.after_s
    at = run.now + timedelta(seconds=after_s)
    if scripted.kind in {"delivered", "late", "transient"}:
        return [(at, n, "delivered")]
    if scripted.kind == "sent":
        return [(at, n, "sent")]
    if scripted.kind == "read":
        return [(at, n, "delivered"), (at, n, "read")]
    return [(at, n, "failed")] if scripted.kind == "failed" else []


def _wait(run: _Simulation, decision: Wait) -> None:
    """Advance the time to the next receipt, or to the end of the wait."""
    until_s = (decision.until - run.start).total_seconds()
    run.record(TraceEntry(0, "wait", reason=decision.why, until_s=until_s))
    receipt = min(run.pending, key=lambda receipt: receipt[0], default=None)
    if receipt is not None and receipt[0] < decision.until:
        run.pending.remove(receipt)
        run.now = max(run.now, receipt[0])
        _receive(run, receipt[1], receipt[2])
        return
    run.now = max(run.now, decision.until)
    if decision.why == "quiet_hours":
        run.held_until = decision.until


def _poll(run: _Simulation, decision: Poll) -> None:
    """Ask the provider of the last attempt. It knows of a delivery whose receipt is lost."""
    n = len(run.attempts) - 1
    attempt = run.attempts[n] = replace(run.attempts[n], may_poll=False)
    run.record(TraceEntry(0, "poll", decision.step, attempt.channel, decision.account_id))
    scripted = run.simulated.outcomes.get(attempt.channel, ScriptedOutcome())
    if scripted.kind == "lost":
        _receive(run, n, "delivered")


def _receive(run: _Simulation, n: int, report: Report) -> None:
    attempt = run.attempts[n]
    state = advance(attempt.state, report)
    if state is not None:
        failure = "recipient" if state == "failed" else attempt.failure
        run.attempts[n] = replace(attempt, state=state, failure=failure)
    run.record(TraceEntry(0, "receipt", attempt.step, attempt.channel, attempt.account_id, report))


def _final_state(run: _Simulation) -> str:
    states = {attempt.state for attempt in run.attempts}
    for state in ("read", "delivered"):
        if state in states:
            return state
    return "sent" if any(is_success(run.policy, attempt) for attempt in run.attempts) else "failed"
