"""What a message does next: try, wait, or give up. One function decides, for the worker and for a simulation alike.

A step of the policy is one channel. Within a step, an account is tried again after a passing fault, then the channel's
next account; a call that was accepted, or whose outcome is unknown, is waited for; then the next step is taken. A
rejection that no repetition would mend goes on at once. The deadline bounds everything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal

from policies.receipts import RANK, State, succeeded
from policies.windows import QuietHours, quiet_until

Success = Literal["sent", "delivered"]
Outcome = Literal["accepted", "rejected", "unknown"]
Class = Literal["connect", "transient", "timeout", "rate", "recipient", "policy", "content", "config", "ours"]

MAX_TRIES: Final = 3
"""Calls to one account within one step."""
MAX_TRIES_OF_STEP: Final = 8
"""Calls within one step, whatever the number of accounts."""
RETRY_AFTER_S: Final = (0.5, 2.0)
"""Waits after the first and second passing fault of an account; never more than an eighth of the step's own wait."""

_PASSING: Final = frozenset({"connect", "transient", "rate"})
_OTHER_ACCOUNT: Final = frozenset({"connect", "transient", "rate", "config"})
"""Faults of the account or its provider, which another one may not have."""


@dataclass(frozen=True, slots=True)
class Step:
    """One channel of a policy, in its turn."""

    channel: str
    success: Success
    wait_s: int
    providers: tuple[str, ...] = ()
    """Accounts by id, name or kind, in order of preference; empty for all of the channel's."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The strategy of one message."""

    steps: tuple[Step, ...]
    deadline_s: int
    quiet: QuietHours | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call, as far as deciding needs it. `step` counts from 0, `number` from 1 within its step."""

    step: int
    number: int
    channel: str
    account_id: str
    receipts: bool
    state: State
    outcome: Outcome | None
    failure: str | None
    """Its class, for a rejection."""
    wait_until: datetime | None
    retry_at: datetime | None


@dataclass(frozen=True, slots=True)
class Route:
    """An account of a channel that may be used; `receipts` says whether its provider reports deliveries."""

    account_id: str
    receipts: bool


@dataclass(frozen=True, slots=True)
class Breakers:
    """Which accounts must not be called, and until when."""

    open_until: Mapping[str, datetime] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Quotas:
    """Channels whose quota is used up."""

    exhausted: frozenset[str] = frozenset()


ALL_CLOSED: Final = Breakers()
NO_QUOTAS: Final = Quotas()


@dataclass(frozen=True, slots=True)
class World:
    """What surrounds a decision: the routes of each step in order, and why a channel may not be used, where it may not."""

    routes: Mapping[int, Sequence[Route]]
    blocked: Mapping[str, str] = field(default_factory=dict)
    deadline_at: datetime | None = None
    held_until: datetime | None = None
    """The end of quiet hours that were waited for already."""


@dataclass(frozen=True, slots=True)
class Skip:
    """A step that was passed over, and why."""

    step: int
    channel: str
    reason: str


@dataclass(frozen=True, slots=True)
class Send:
    """Call this account now."""

    step: int
    number: int
    channel: str
    route: Route
    why: str
    duplicate_possible: bool
    """Whether an earlier attempt may still reach the person."""
    skipped: tuple[Skip, ...] = ()


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing before this time, unless a receipt comes."""

    until: datetime
    why: str
    skipped: tuple[Skip, ...] = ()


@dataclass(frozen=True, slots=True)
class Fail:
    """No way is left."""

    why: str
    skipped: tuple[Skip, ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """The policy's success was reached."""


Decision = Send | Wait | Fail | Done


def is_success(policy: Policy, attempt: Attempt) -> bool:
    """Whether this attempt is what its step calls success; without receipts, acceptance is all that can be known."""
    return succeeded(attempt.state, policy.steps[attempt.step].success if attempt.receipts else "sent")


def next_step(
    policy: Policy,
    attempts: Sequence[Attempt],
    world: World,
    now: datetime,
    breakers: Breakers = ALL_CLOSED,
    quotas: Quotas = NO_QUOTAS,
) -> Decision:
    """What to do now, given all attempts so far in order. Pure: the same values give the same decision."""
    if any(is_success(policy, attempt) for attempt in attempts):
        return Done()
    if world.deadline_at is not None and now >= world.deadline_at:
        return Fail("deadline_exceeded")
    skipped: list[Skip] = []
    parked: datetime | None = None
    first = attempts[-1].step if attempts else 0
    for n in range(first, len(policy.steps)):
        mine = [attempt for attempt in attempts if attempt.step == n]
        decision = _in_step(policy, n, mine, attempts, world, now, breakers, quotas)
        if isinstance(decision, Skip):
            if decision.reason == "circuit_open":
                opens = _reopens(world.routes.get(n, ()), breakers)
                parked = opens if parked is None else min(parked, opens)
            skipped.append(decision)
        elif decision is not None:
            return _bounded(_with_skipped(decision, tuple(skipped)), world)
    if parked is not None:
        return _bounded(Wait(parked, "circuit_open", tuple(skipped)), world)
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
) -> Send | Wait | Skip | None:
    """The decision within one step; a Skip for one that cannot begin, None for one that is over."""
    step = policy.steps[n]
    if mine:
        wait = _wait_in(mine[-1], now)
        if wait is not None:
            return wait
        if not _goes_on(mine[-1]):
            return None
    reason = world.blocked.get(step.channel) or ("quota_exceeded" if step.channel in quotas.exhausted else None)
    if reason is not None:
        return None if mine else Skip(n, step.channel, reason)
    served = world.held_until is not None and world.held_until <= now
    quiet = quiet_until(policy.quiet, now) if policy.quiet is not None and not served else None
    if quiet is not None and policy.quiet is not None:
        late = world.deadline_at is not None and quiet >= world.deadline_at
        if policy.quiet.then == "skip" or late:
            return None if mine else Skip(n, step.channel, "quiet_hours")
        return Wait(quiet, "quiet_hours")
    route, why = _route(world.routes.get(n, ()), mine, now, breakers)
    if route is None:
        return None if mine else Skip(n, step.channel, why)
    return Send(n, len(mine) + 1, step.channel, route, why, any(_may_arrive(attempt) for attempt in attempts))


def _wait_in(last: Attempt, now: datetime) -> Wait | None:
    """What the last attempt of a step is waited for."""
    if last.outcome is None and last.state != "failed":
        return Wait(last.wait_until or now, "in_flight")
    if last.state != "failed" and last.wait_until is not None and now < last.wait_until:
        return Wait(last.wait_until, "no_answer" if last.outcome == "unknown" else "receipt")
    if last.state == "failed" and last.retry_at is not None and now < last.retry_at:
        return Wait(last.retry_at, "retry")
    return None


def _goes_on(last: Attempt) -> bool:
    """Whether a step may make another call after this attempt. An unknown outcome is never repeated blindly."""
    return last.state == "failed" and last.outcome == "rejected" and last.failure in _OTHER_ACCOUNT


def _may_arrive(attempt: Attempt) -> bool:
    return attempt.state != "failed" and (attempt.outcome == "unknown" or RANK[attempt.state] >= RANK["accepted"])


def _route(
    routes: Sequence[Route], mine: Sequence[Attempt], now: datetime, breakers: Breakers
) -> tuple[Route | None, str]:
    """The account for the next call of a step, and why this one."""
    if not routes:
        return None, "no_provider"
    if len(mine) >= MAX_TRIES_OF_STEP:
        return None, "tries_used_up"
    last = mine[-1] if mine else None
    if last is not None and last.retry_at is not None:
        again = next((route for route in routes if route.account_id == last.account_id), None)
        if again is not None and not _is_open(again, breakers, now):
            return again, "retry"
    tried = {attempt.account_id for attempt in mine}
    fresh = [route for route in routes if route.account_id not in tried]
    closed = [route for route in fresh if not _is_open(route, breakers, now)]
    if closed:
        return closed[0], "first_choice" if closed[0] is routes[0] else "other_account"
    return None, "circuit_open" if fresh else "tries_used_up"


def _is_open(route: Route, breakers: Breakers, now: datetime) -> bool:
    until = breakers.open_until.get(route.account_id)
    return until is not None and now < until


def _reopens(routes: Sequence[Route], breakers: Breakers) -> datetime:
    return min(breakers.open_until[route.account_id] for route in routes if route.account_id in breakers.open_until)


def _with_skipped(decision: Send | Wait, skipped: tuple[Skip, ...]) -> Send | Wait:
    if isinstance(decision, Wait):
        return Wait(decision.until, decision.why, skipped)
    return Send(
        decision.step,
        decision.number,
        decision.channel,
        decision.route,
        decision.why,
        decision.duplicate_possible,
        skipped,
    )


def _bounded(decision: Send | Wait, world: World) -> Send | Wait:
    """A wait never outlasts the deadline."""
    if isinstance(decision, Wait) and world.deadline_at is not None and decision.until > world.deadline_at:
        return Wait(world.deadline_at, decision.why, decision.skipped)
    return decision


def waits(
    step: Step, outcome: Outcome, failure: str | None, retry_after_s: float | None, tries: int, ended_at: datetime
) -> tuple[datetime | None, datetime | None]:
    """(until when a result is waited for, when its account is tried again); `tries` counts the account's in this step.

    A provider that asks for more patience than the step has is not waited for.
    """
    if outcome != "rejected":
        return ended_at + timedelta(seconds=step.wait_s), None
    if failure not in _PASSING or tries >= MAX_TRIES:
        return None, None
    pause_s = min(RETRY_AFTER_S[min(tries, len(RETRY_AFTER_S)) - 1], step.wait_s / 8)
    pause_s = max(pause_s, retry_after_s or 0.0)
    if pause_s > step.wait_s:
        return None, None
    return None, ended_at + timedelta(seconds=pause_s)


def unmeetable(policy: Policy) -> str | None:
    """Why the last step can never be taken before the deadline; None when it can."""
    before_last_s = sum(step.wait_s for step in policy.steps[:-1])
    if before_last_s >= policy.deadline_s:
        return f"the waits before the last step come to {before_last_s} s, and the deadline is {policy.deadline_s} s"
    return None
