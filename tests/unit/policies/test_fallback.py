"""Laws of the fallback decision: a message ends, never continues after success, and never after its deadline."""

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.fallback import MAX_TRIES, MAX_TRIES_OF_STEP, is_success, next_step, unmeetable, waits
from policies.fallback_values import (
    Attempt,
    Breakers,
    Done,
    Fail,
    Outcome,
    Policy,
    Poll,
    Quotas,
    Route,
    Send,
    Step,
    Wait,
    World,
)
from policies.receipts import Report, State, advance
from policies.windows import QuietHours

NOW = datetime(2026, 11, 2, 12, tzinfo=UTC)
TWO = Policy((Step("whatsapp", "delivered", 60), Step("sms", "delivered", 60)), 3600)
ROUTES = {0: [Route("prv_a", True), Route("prv_b", True)], 1: [Route("prv_c", True)]}
WORLD = World(ROUTES, deadline_at=NOW + timedelta(hours=1))


def attempt(
    step: int = 0,
    number: int = 1,
    *,
    state: State = "accepted",
    outcome: Outcome | None = "accepted",
    failure: str | None = None,
    account: str = "prv_a",
    wait_s: float | None = None,
    retry_s: float | None = None,
) -> Attempt:
    """An attempt; `wait_s` and `retry_s` are seconds from now."""
    return Attempt(
        step,
        number,
        TWO.steps[step].channel,
        account,
        True,
        state,
        outcome,
        failure,
        NOW + timedelta(seconds=wait_s) if wait_s is not None else None,
        NOW + timedelta(seconds=retry_s) if retry_s is not None else None,
    )


def test_a_provider_is_asked_before_the_next_step() -> None:
    """Once, after the wait and before the fallback or the end; not after a failure, nor while a receipt may still come."""
    waiting = replace(attempt(wait_s=1), may_poll=True)
    assert isinstance(next_step(TWO, [waiting], WORLD, NOW), Wait)
    over = replace(attempt(wait_s=-1), may_poll=True)
    assert next_step(TWO, [over], WORLD, NOW) == Poll(0, "prv_a")
    unknown = replace(attempt(outcome="unknown", state="sending", wait_s=-1), may_poll=True)
    assert next_step(TWO, [unknown], WORLD, NOW) == Poll(0, "prv_a")
    asked = next_step(TWO, [replace(over, may_poll=False)], WORLD, NOW)
    assert isinstance(asked, Send)
    assert asked.step == 1
    failed = replace(attempt(outcome="rejected", state="failed", failure="recipient"), may_poll=True)
    assert isinstance(next_step(TWO, [failed], WORLD, NOW), Send)


def test_too_much_to_one_person_holds_that_person_only() -> None:
    """The same account is tried again after its pause, no other account is, and then the next channel has it."""
    limited = attempt(outcome="rejected", state="failed", failure="recipient_rate", retry_s=6)
    assert next_step(TWO, [limited], WORLD, NOW) == Wait(NOW + timedelta(seconds=6), "retry")
    again = next_step(TWO, [limited], WORLD, NOW + timedelta(seconds=6))
    assert isinstance(again, Send)
    assert (again.route.account_id, again.why) == ("prv_a", "retry")
    given_up = next_step(TWO, [replace(limited, retry_at=None)], WORLD, NOW)
    assert isinstance(given_up, Send)
    assert given_up.channel == "sms"


def test_a_person_who_has_just_got_a_message_is_waited_for() -> None:
    """Within the step's wait the message waits for its turn, past it the next channel has it; no other account does.

    If no channel is left it waits as long as its deadline allows. A retry is the same message, and waits for no turn.
    """
    soon, late = NOW + timedelta(seconds=60), NOW + timedelta(seconds=61)
    held = replace(WORLD, recipient_free_at={"prv_a": soon})
    assert next_step(TWO, [], held, NOW) == Wait(soon, "recipient_rate", account_id="prv_a")
    assert next_step(TWO, [], held, soon) == next_step(TWO, [], WORLD, soon)
    passed = next_step(TWO, [], replace(WORLD, recipient_free_at={"prv_a": late}), NOW)
    assert isinstance(passed, Send)
    assert (passed.channel, [skip.reason for skip in passed.skipped]) == ("sms", ["recipient_rate"])
    parked = next_step(TWO, [], replace(WORLD, recipient_free_at={"prv_a": late, "prv_c": late}), NOW)
    assert isinstance(parked, Wait)
    assert (parked.until, parked.why, parked.account_id) == (late, "recipient_rate", "prv_a")
    beyond = NOW + timedelta(hours=2)
    bounded = next_step(TWO, [], replace(WORLD, recipient_free_at={"prv_a": beyond, "prv_c": beyond}), NOW)
    assert isinstance(bounded, Wait)
    assert bounded.until == WORLD.deadline_at
    again = attempt(outcome="rejected", state="failed", failure="transient", retry_s=0)
    retry = next_step(TWO, [again], held, NOW)
    assert isinstance(retry, Send)
    assert retry.why == "retry"


def test_a_message_starts_with_its_first_step() -> None:
    """The first call goes to the first account of the first channel."""
    decision = next_step(TWO, [], WORLD, NOW)
    assert isinstance(decision, Send)
    assert (decision.step, decision.number, decision.channel, decision.route.account_id) == (0, 1, "whatsapp", "prv_a")
    assert not decision.duplicate_possible


def test_a_receipt_is_success_and_acceptance_is_not() -> None:
    """Receipts decide the success that the policy defines, never a provider's 2xx (failure case 8)."""
    assert isinstance(next_step(TWO, [attempt(wait_s=10)], WORLD, NOW), Wait)
    assert isinstance(next_step(TWO, [attempt(state="delivered", wait_s=10)], WORLD, NOW), Done)
    sent = replace(TWO, steps=(Step("whatsapp", "sent", 60), TWO.steps[1]))
    assert isinstance(next_step(sent, [attempt(wait_s=10)], WORLD, NOW), Done)


def test_without_receipts_acceptance_is_success() -> None:
    """For an account without receipts, acceptance is success, whatever its step requires."""
    assert is_success(TWO, replace(attempt(), receipts=False))


def test_after_a_permanent_rejection_the_next_step_is_taken_at_once() -> None:
    """There is no wait after a rejection that a retry cannot fix (failure case 9)."""
    refused = attempt(state="failed", outcome="rejected", failure="recipient")
    decision = next_step(TWO, [refused], WORLD, NOW)
    assert isinstance(decision, Send)
    assert (decision.channel, decision.duplicate_possible) == ("sms", False)


def test_a_missing_receipt_is_waited_for_and_then_a_duplicate_is_possible() -> None:
    """The step waits for the receipt of an accepted attempt; the next step then says that both may arrive."""
    assert next_step(TWO, [attempt(wait_s=0.001)], WORLD, NOW) == Wait(NOW + timedelta(milliseconds=1), "receipt")
    decision = next_step(TWO, [attempt(wait_s=0)], WORLD, NOW)
    assert isinstance(decision, Send)
    assert (decision.channel, decision.duplicate_possible) == ("sms", True)


def test_an_unknown_outcome_is_never_retried_on_its_channel() -> None:
    """If bytes were sent without an answer, the step waits for a receipt; then the next channel, never another account."""
    unknown = attempt(state="sending", outcome="unknown", wait_s=5)
    assert next_step(TWO, [unknown], WORLD, NOW) == Wait(NOW + timedelta(seconds=5), "no_answer")
    decision = next_step(TWO, [unknown], WORLD, NOW + timedelta(seconds=5))
    assert isinstance(decision, Send)
    assert (decision.channel, decision.duplicate_possible) == ("sms", True)


def test_a_transient_failure_is_retried_then_another_account_then_the_next_channel() -> None:
    """Retries per account are bounded; then the channel's next account is called, then the next channel (N-04)."""
    failed = attempt(state="failed", outcome="rejected", failure="transient", retry_s=1)
    assert next_step(TWO, [failed], WORLD, NOW) == Wait(NOW + timedelta(seconds=1), "retry")
    retry = next_step(TWO, [failed], WORLD, NOW + timedelta(seconds=1))
    assert isinstance(retry, Send)
    assert (retry.number, retry.route.account_id) == (2, "prv_a")
    used_up = [replace(failed, number=n, retry_at=None) for n in (1, 2, 3)]
    other = next_step(TWO, used_up, WORLD, NOW)
    assert isinstance(other, Send)
    assert (other.number, other.route.account_id) == (4, "prv_b")
    both = [*used_up, replace(failed, number=4, account_id="prv_b", retry_at=None)]
    next_channel = next_step(TWO, both, WORLD, NOW)
    assert isinstance(next_channel, Send)
    assert next_channel.channel == "sms"


def test_a_retry_after_beyond_the_wait_of_the_step_is_not_waited_for() -> None:
    """If Retry-After is longer than the step's wait, the account is not retried."""
    assert waits(TWO.steps[0], "rejected", "rate", 61, 1, NOW) == (None, None)
    assert waits(TWO.steps[0], "rejected", "rate", 59, 1, NOW) == (None, NOW + timedelta(seconds=59))


def test_a_call_in_flight_is_waited_for() -> None:
    """Nothing else is tried while a call has no outcome, even if its receipt arrives before the response."""
    assert isinstance(next_step(TWO, [attempt(state="sending", outcome=None)], WORLD, NOW), Wait)
    assert isinstance(next_step(TWO, [attempt(state="sent", outcome=None)], WORLD, NOW), Wait)


def test_a_blocked_step_is_skipped_with_its_reason() -> None:
    """An opt-out, a used-up quota and a missing account have different reasons, and are no provider's failure."""
    world = replace(WORLD, blocked={"whatsapp": "opted_out"})
    decision = next_step(TWO, [], world, NOW)
    assert isinstance(decision, Send)
    assert [skip.reason for skip in decision.skipped] == ["opted_out"]
    paid = [attempt(wait_s=-1)]
    assert isinstance(next_step(TWO, paid, WORLD, NOW, quotas=Quotas(messages=True)), Fail)
    assert isinstance(next_step(TWO, [], WORLD, NOW, quotas=Quotas(messages=True)), Send)
    quota = next_step(TWO, [], WORLD, NOW, quotas=Quotas(money=frozenset({"whatsapp"})))
    assert isinstance(quota, Send)
    assert [skip.reason for skip in quota.skipped] == ["quota_exceeded"]
    failed = next_step(TWO, [], World({}), NOW)
    assert isinstance(failed, Fail)
    assert [skip.reason for skip in failed.skipped] == ["no_provider", "no_provider"]


def test_open_breakers_are_avoided_or_waited_for() -> None:
    """An open circuit reroutes; if all circuits are open, the message is parked until the first one closes."""
    first = Breakers({"prv_a": NOW + timedelta(seconds=30)})
    decision = next_step(TWO, [], WORLD, NOW, first)
    assert isinstance(decision, Send)
    assert decision.route.account_id == "prv_b"
    every = Breakers({name: NOW + timedelta(seconds=s) for name, s in (("prv_a", 30), ("prv_b", 40), ("prv_c", 20))})
    parked = next_step(TWO, [], WORLD, NOW, every)
    assert isinstance(parked, Wait)
    assert (parked.until, parked.why) == (NOW + timedelta(seconds=20), "circuit_open")


def test_a_hold_that_is_over_is_no_leave_for_the_next_night() -> None:
    """A message that waited for the end of one night, and was not sent in the day, waits in the next night too."""
    policy = replace(TWO, quiet=QuietHours(time(21), time(8), "UTC", "wait"), deadline_s=10**6)
    morning = datetime(2026, 1, 2, 8, tzinfo=UTC)
    world = replace(WORLD, deadline_at=morning + timedelta(days=9), held_until=morning)
    assert isinstance(next_step(policy, [], world, morning), Send)
    assert next_step(policy, [], world, morning + timedelta(hours=15)) == Wait(
        morning + timedelta(days=1), "quiet_hours"
    )


def test_the_deadline_bounds_everything() -> None:
    """At the deadline nothing more is sent, and no wait ends after it."""
    soon = replace(WORLD, deadline_at=NOW + timedelta(seconds=5))
    assert next_step(TWO, [attempt(wait_s=60)], soon, NOW) == Wait(NOW + timedelta(seconds=5), "receipt")
    assert next_step(TWO, [], replace(WORLD, deadline_at=NOW), NOW) == Fail("deadline_exceeded")


@pytest.mark.parametrize(("first_s", "deadline_s", "meetable"), [(60, 61, True), (60, 60, False), (600, 60, False)])
def test_a_policy_whose_last_step_is_too_late_is_refused(first_s: int, deadline_s: int, meetable: bool) -> None:
    """A policy is unmeetable if its deadline ends before the last step can begin."""
    policy = Policy((Step("whatsapp", "delivered", first_s), Step("sms", "delivered", 60)), deadline_s)
    assert (unmeetable(policy) is None) == meetable


answers = st.tuples(
    st.sampled_from(["accepted", "rejected", "unknown"]),
    st.sampled_from(["connect", "transient", "rate", "recipient_rate", "recipient", "policy", "content", "config"]),
    st.sampled_from([None, None, "delivered", "read", "failed", "sent"]),
    st.one_of(st.none(), st.floats(0, 1000)),
)
policies = st.builds(
    Policy,
    st.lists(
        st.builds(
            Step,
            st.sampled_from(["whatsapp", "sms", "email"]),
            st.sampled_from(["sent", "delivered"]),
            st.integers(0, 600),
        ),
        min_size=1,
        max_size=4,
    ).map(tuple),
    st.integers(1, 4000),
)


@settings(max_examples=3 * settings().max_examples)  # the most important law
@given(policies, st.lists(answers, min_size=1, max_size=12), st.integers(0, 3))  # used in turn, repeatedly
def test_every_message_ends(
    policy: Policy, answered: list[tuple[Outcome, str, Report | None, float | None]], accounts: int
) -> None:
    """Whatever providers do, a message ends after a bounded number of calls, none after success or the deadline."""
    deadline_at = NOW + timedelta(seconds=policy.deadline_s)
    routes = {n: [Route(f"prv_{n}{k}", True) for k in range(accounts)] for n in range(len(policy.steps))}
    attempts: list[Attempt] = []
    now, turns = NOW, 0
    while True:
        turns += 1
        assert turns < 500
        decision = next_step(policy, attempts, World(routes, deadline_at=deadline_at), now)
        if isinstance(decision, Done):
            assert any(is_success(policy, one) for one in attempts)
            break
        if isinstance(decision, Fail):
            assert not any(is_success(policy, one) for one in attempts)
            break
        if isinstance(decision, Wait):
            assert now < decision.until <= deadline_at
            now = decision.until
            continue
        assert now < deadline_at
        assert not any(is_success(policy, one) for one in attempts)
        if isinstance(decision, Poll):
            assert attempts[-1].may_poll
            attempts[-1] = replace(attempts[-1], may_poll=False)
            continue
        assert not attempts or decision.step >= attempts[-1].step
        attempts.append(_answered(policy, decision, attempts, answered[len(attempts) % len(answered)], now))
    for n in range(len(policy.steps)):
        mine = [one for one in attempts if one.step == n]
        assert len(mine) <= MAX_TRIES_OF_STEP
        assert [one.number for one in mine] == list(range(1, len(mine) + 1))
        for account in {one.account_id for one in mine}:
            assert sum(one.account_id == account for one in mine) <= MAX_TRIES


def _answered(
    policy: Policy,
    decision: Send,
    attempts: list[Attempt],
    answer: tuple[Outcome, str, Report | None, float | None],
    now: datetime,
) -> Attempt:
    outcome, failure, receipt, retry_after_s = answer
    tries = 1 + sum(one.step == decision.step and one.account_id == decision.route.account_id for one in attempts)
    refused = failure if outcome == "rejected" else None
    wait_until, retry_at = waits(policy.steps[decision.step], outcome, refused, retry_after_s, tries, now)
    states: dict[Outcome, State] = {"rejected": "failed", "accepted": "accepted", "unknown": "sending"}
    state = states[outcome]
    if outcome != "rejected" and receipt is not None:
        state = advance(state, receipt) or state
    return Attempt(
        decision.step, decision.number, decision.channel, decision.route.account_id, True, state, outcome, refused,
        wait_until, retry_at, may_poll=True,
    )  # fmt: skip
