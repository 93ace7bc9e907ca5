"""Decides what a message does next: send, wait, poll, fail or done. Workers and simulations call the same function.

A step of the policy is one channel. Within a step, an account is retried after a transient failure, then the channel's
next account is called. After an accepted call, or a call with an unknown outcome, the step waits for a receipt. Then its
provider is asked, if it can be, and after that the next step is taken. A rejection that a retry cannot fix goes to the
next step at once. The deadline limits everything.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from policies.fallback_values import (
    ALL_CLOSED,
    NO_QUOTAS,
    Attempt,
    Breakers,
    Decision,
    Done,
    Fail,
    Outcome,
    Policy,
    Poll,
    Quotas,
    Route,
    Send,
    Skip,
    Step,
    Wait,
    World,
)
from policies.receipts import RANK, succeeded
from policies.windows import quiet_until

MAX_TRIES: Final = 3
"""The maximum number of calls to one account within one step."""
MAX_TRIES_OF_STEP: Final = 8
"""The maximum number of calls within one step, for any number of accounts."""
RETRY_AFTER_S: Final = (0.5, 2.0)
"""Seconds to wait after an account's first and second transient failure, at most an eighth of the step's `wait_s`."""

_HOLD_OVER: Final = timedelta(minutes=5)
"""A message that has waited for the end of quiet hours is sent within this time after it, whatever the clock says then.

A test clock that is moved shows the message a time inside the same quiet hours again."""

_RETRIED: Final = frozenset({"connect", "transient", "rate", "recipient_rate"})
"""Failures after which the same account is called again."""
_OTHER_ACCOUNT: Final = frozenset({"connect", "transient", "rate", "config"})
"""Failures of the account or its provider, which another account may not have."""


def is_success(policy: Policy, attempt: Attempt) -> bool:
    """Return True if the attempt reached its step's success. Without receipts, acceptance counts as success."""
    return succeeded(attempt.state, policy.steps[attempt.step].success if attempt.receipts else "sent")


def next_step(
    policy: Policy,
    attempts: Sequence[Attempt],
    world: World,
    now: datetime,
    breakers: Breakers = ALL_CLOSED,
    quotas: Quotas = NO_QUOTAS,
) -> Decision:
    """Return what to do now, given all attempts so far in order. Pure: the same values give the same decision."""
    if any(is_success(policy, attempt) for attempt in attempts):
        return Done()
    if world.deadline_at is not None and now >= world.deadline_at:
        return Fail("deadline_exceeded")
    skipped: list[Skip] = []
    parked: Wait | None = None
    first = attempts[-1].step if attempts else 0
    for n in range(first, len(policy.steps)):
        mine = [attempt for attempt in attempts if attempt.step == n]
        decision = _in_step(policy, n, mine, attempts, world, now, breakers, quotas)
        if isinstance(decision, Skip):
            if decision.wait is not None and (parked is None or decision.wait.until < parked.until):
                parked = decision.wait
            skipped.append(decision)
        elif decision is not None:
            return _bounded(replace(decision, skipped=tuple(skipped)), world)
    if parked is not None:
        return _bounded(replace(parked, skipped=tuple(skipped)), world)
    return Fail("exhausted", tuple(skipped))


def _in_step(
    policy: Policy,
    n: int,
    mine: Sequence[Attempt],
    attempts: Sequence[Attempt],
    world: World,
    now: datetime,
    breakers: Breakers,
    quotas: Quotas,
) -> Send | Wait | Poll | Skip | None:
    """Return the decision within one step: Skip if the step cannot begin, None if it is over."""
    step = policy.steps[n]
    if mine:
        wait = _wait_in(mine[-1], now)
        if wait is not None:
            return wait
        if mine[-1].may_poll and _may_arrive(mine[-1]):
            return Poll(n, mine[-1].account_id)
        if not _continues(mine[-1]):
            return None
    reason = world.blocked.get(step.channel) or _over_quota(step, attempts, quotas)
    if reason is not None:
        return Skip(n, step.channel, reason)
    quiet = _quiet(policy, n, world, now)
    if quiet is not None:
        return quiet
    routes = world.routes.get(n, ())
    route, why = _route(routes, mine, now, breakers)
    if route is None and why == "circuit_open":
        return Skip(n, step.channel, why, Wait(_reopens_at(routes, breakers), why))
    if route is None:
        return None if mine else Skip(n, step.channel, why)
    turn = _turn_of_person(policy, n, route, world, now) if why != "retry" else None
    return turn or Send(n, len(mine) + 1, step.channel, route, why, any(_may_arrive(attempt) for attempt in attempts))


def _over_quota(step: Step, attempts: Sequence[Attempt], quotas: Quotas) -> str | None:
    accepted = any(attempt.outcome == "accepted" or RANK[attempt.state] >= RANK["accepted"] for attempt in attempts)
    return "quota_exceeded" if (quotas.messages and accepted) or step.channel in quotas.money else None


def _quiet(policy: Policy, n: int, world: World, now: datetime) -> Wait | Skip | None:
    """Return what a step does in quiet hours, None outside of them."""
    held = world.held_until is not None and world.held_until <= now < world.held_until + _HOLD_OVER
    if policy.quiet is None or held:
        return None
    quiet = quiet_until(policy.quiet, now)
    if quiet is None:
        return None
    late = world.deadline_at is not None and quiet >= world.deadline_at
    if policy.quiet.then == "skip" or late:
        return Skip(n, policy.steps[n].channel, "quiet_hours")
    return Wait(quiet, "quiet_hours")


def _turn_of_person(policy: Policy, n: int, route: Route, world: World, now: datetime) -> Wait | Skip | None:
    """Return the wait for an account that has written to this person just now; past the step's `wait_s` the next one is taken."""
    free_at = world.recipient_free_at.get(route.account_id, now)
    if free_at <= now:
        return None
    turn = Wait(free_at, "recipient_rate", account_id=route.account_id)
    late = free_at > now + timedelta(seconds=policy.steps[n].wait_s)
    return Skip(n, policy.steps[n].channel, turn.why, turn) if late else turn


def _wait_in(last: Attempt, now: datetime) -> Wait | None:
    """Return the wait that the last attempt of a step requires."""
    if last.outcome is None and last.state != "failed":
        return Wait(last.wait_until or now, "in_flight")
    if last.state != "failed" and last.wait_until is not None and now < last.wait_until:
        return Wait(last.wait_until, "no_answer" if last.outcome == "unknown" else "receipt")
    if last.state == "failed" and last.retry_at is not None and now < last.retry_at:
        return Wait(last.retry_at, "retry")
    return None


def _continues(last: Attempt) -> bool:
    """Return True if the step may make another call after this attempt. An unknown outcome is never retried."""
    return last.state == "failed" and last.outcome == "rejected" and last.failure in _RETRIED | _OTHER_ACCOUNT


def _may_arrive(attempt: Attempt) -> bool:
    return attempt.state != "failed" and (attempt.outcome == "unknown" or RANK[attempt.state] >= RANK["accepted"])


def _route(
    routes: Sequence[Route], mine: Sequence[Attempt], now: datetime, breakers: Breakers
) -> tuple[Route | None, str]:
    """Return the account for the next call of a step, and the reason for the choice."""
    if not routes:
        return None, "no_provider"
    if len(mine) >= MAX_TRIES_OF_STEP:
        return None, "tries_used_up"
    last = mine[-1] if mine else None
    may_retry = False
    if last is not None and last.retry_at is not None:
        same = next((route for route in routes if route.account_id == last.account_id), None)
        if same is not None and not _is_open(same, breakers, now):
            return same, "retry"
        may_retry = same is not None
    if last is not None and last.failure not in _OTHER_ACCOUNT:
        return None, "circuit_open" if may_retry else "tries_used_up"
    tried = {attempt.account_id for attempt in mine}
    untried = [route for route in routes if route.account_id not in tried]
    closed = [route for route in untried if not _is_open(route, breakers, now)]
    if closed:
        return closed[0], "first_choice" if closed[0] is routes[0] else "other_account"
    return None, "circuit_open" if untried or may_retry else "tries_used_up"


def _is_open(route: Route, breakers: Breakers, now: datetime) -> bool:
    until = breakers.open_until.get(route.account_id)
    return until is not None and now < until


def _reopens_at(routes: Sequence[Route], breakers: Breakers) -> datetime:
    return min(breakers.open_until[route.account_id] for route in routes if route.account_id in breakers.open_until)


def _bounded(decision: Send | Wait | Poll, world: World) -> Send | Wait | Poll:
    """Shorten a wait that ends after the deadline."""
    if isinstance(decision, Wait) and world.deadline_at is not None and decision.until > world.deadline_at:
        return replace(decision, until=world.deadline_at)
    return decision


def waits(
    step: Step, outcome: Outcome, failure: str | None, retry_after_s: float | None, tries: int, ended_at: datetime
) -> tuple[datetime | None, datetime | None]:
    """Return (until when the step waits for a receipt, when the account is retried).

    `tries` is the number of calls to the account in this step. If the provider asks for a longer pause than the step's
    `wait_s`, the account is not retried.
    """
    if outcome != "rejected":
        return ended_at + timedelta(seconds=step.wait_s), None
    if failure not in _RETRIED or tries >= MAX_TRIES:
        return None, None
    pause_s = min(RETRY_AFTER_S[min(tries, len(RETRY_AFTER_S)) - 1], step.wait_s / 8)
    pause_s = max(pause_s, retry_after_s or 0.0)
    if pause_s > step.wait_s:
        return None, None
    return None, ended_at + timedelta(seconds=pause_s)


def unmeetable(policy: Policy) -> str | None:
    """Return why the last step can never be taken before the deadline; None if it can."""
    before_last_s = sum(step.wait_s for step in policy.steps[:-1])
    if before_last_s >= policy.deadline_s:
        return f"the waits before the last step come to {before_last_s} s, and the deadline is {policy.deadline_s} s"
    return None
