"""Choose a message's next attempt by its fallback policy, or wait, or end the message."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from policies.fallback import next_step
from policies.fallback_values import Breakers, Done, Fail, Poll, Quotas, Send, Skip, Wait, World
from policies.opt_outs import opted_out
from policies.windows import dlt_window_closed
from spine.kernel import ids
from spine.notifications.locked_messages import LockedAttempt, LockedMessage
from spine.notifications.message_changes import MessageChanges
from spine.notifications.message_models import Status
from spine.notifications.provider_kinds import PROVIDER_KINDS
from spine.notifications.recipient_paces import RecipientPaces
from spine.notifications.routing import channels_without_money, routes_by_step
from spine.notifications.state_machine.transitions import end_waits, fail_message, set_current_attempt

_POLL: Final = timedelta(seconds=25)
"""How long a message waits for its provider's answer to a question. A call takes less."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the decision on a message needs to know of its workspace.

    `accounts` are the provider accounts, in order of priority; those with an open breaker are passed over, as are those
    that are `spent`: they cost money that the workspace's quota no longer has. While the quota of messages is used up, a
    message that a provider has accepted once takes no further step. The message waits for an account, without an attempt, if
    `may_call` is false for its id, or if its rate to one person says so.
    """

    accounts: Sequence[Mapping[str, Any]]
    breakers: Breakers
    recipient_paces: RecipientPaces
    may_call: Callable[[str], bool]
    quota_used_up: bool


def decide_next_attempt(
    changes: MessageChanges, message: LockedMessage, surroundings: Surroundings
) -> LockedAttempt | None:
    """Take the next step of a message that this worker has leased. Returns the attempt to make, or None."""
    if message.row["status"] == Status.CANCELLED:
        changes.end(message)
        return None
    accounts, paces = surroundings.accounts, surroundings.recipient_paces
    affordable = [account for account in accounts if not account["spent"]]
    world = _world(message, affordable, changes.now, paces.free_at(message))
    attempts = [attempt.to_policy_attempt() for attempt in message.attempts]
    quotas = Quotas(surroundings.quota_used_up, channels_without_money(message.policy, accounts))
    decision = next_step(message.policy, attempts, world, changes.now, surroundings.breakers, quotas)
    if isinstance(decision, Send | Wait | Poll | Fail):
        _record_skipped(changes, message, decision.skipped)
    if isinstance(decision, Send) and not surroundings.may_call(decision.route.account_id):
        _wait_for_account(changes, message, _find(accounts, decision.route.account_id))
    elif isinstance(decision, Send):
        if decision.why != "retry":
            paces.use(message, decision.route.account_id)
        return _start_attempt(changes, message, decision, _find(accounts, decision.route.account_id))
    elif isinstance(decision, Wait):
        if decision.account_id is not None:
            _queue_for_person(changes, message, decision, paces)
        _wait(changes, message, decision)
    elif isinstance(decision, Poll):
        attempt = message.attempts[-1]
        changes.poll(message, attempt, changes.now + _POLL)
        why = "no receipt came in time"
        changes.add_timeline_entry(message, "attempt.polled", {"attempt_id": attempt.id, "why": why})
    elif isinstance(decision, Fail):
        fail_message(changes, message, decision.why)
    else:
        assert isinstance(decision, Done)
        end_waits(changes, message)
        changes.end(message)
    return None


def _find(accounts: Sequence[Mapping[str, Any]], id: str) -> Mapping[str, Any]:
    return next(account for account in accounts if account["id"] == id)


def _wait_for_account(changes: MessageChanges, message: LockedMessage, account: Mapping[str, Any]) -> None:
    """Leave the message to the turns of an account: those of its rate are on the timeline, since they may take long."""
    changes.wait_for_account(message, account["id"])
    if account["rate_per_s"] is not None:
        detail = {"provider_account_id": account["id"], "why": "rate_per_s", "rate_per_s": account["rate_per_s"]}
        changes.add_timeline_entry(message, "attempt.waits", detail)


def _queue_for_person(changes: MessageChanges, message: LockedMessage, decision: Wait, paces: RecipientPaces) -> None:
    """Leave the message its turn among those to the same person, if there is one before its deadline."""
    assert decision.account_id is not None
    at_deadline = decision.until == message.row["deadline_at"]
    if not at_deadline and not paces.queue(message, decision.account_id, decision.until):
        return  # it looks again in a moment, which is not worth an entry
    detail = {"provider_account_id": decision.account_id, "why": decision.why, "until": decision.until}
    changes.add_timeline_entry(message, "attempt.waits", detail)


def _world(
    message: LockedMessage,
    accounts: Sequence[Mapping[str, Any]],
    now: datetime,
    recipient_free_at: Mapping[str, datetime],
) -> World:
    """Return what the fallback policy needs besides the attempts: routes, blocked channels and times."""
    row = message.row
    blocked: dict[str, str] = {}
    for step in message.policy.steps:
        if row["stopped"] or opted_out(message.opt_outs, step.channel, row["category"]):
            blocked[step.channel] = "opted_out"
        elif dlt_window_closed(step.channel, row["addresses"][step.channel], row["dlt_category"], now):
            blocked[step.channel] = "window_closed"
    routes = routes_by_step(message.policy, accounts, row["id"])
    return World(routes, blocked, row["deadline_at"], row["held_until"], recipient_free_at)


def _record_skipped(changes: MessageChanges, message: LockedMessage, skipped: Sequence[Skip]) -> None:
    reasons: list[dict[str, Any]] = message.row["reasons"]
    known = {(reason["step"], reason["reason"]) for reason in reasons}
    for skip in skipped:
        if (skip.step, skip.reason) not in known:
            reasons.append({"step": skip.step, "channel": skip.channel, "reason": skip.reason})
            changes.add_timeline_entry(
                message, "step.skipped", {"step": skip.step, "channel": skip.channel, "reason": skip.reason}
            )
            changes.mark_changed(message)


def _wait(changes: MessageChanges, message: LockedMessage, decision: Wait) -> None:
    row = message.row
    if decision.why == "quiet_hours" and row["held_until"] != decision.until:
        row["held_until"] = decision.until
        changes.add_timeline_entry(message, "held", {"until": decision.until, "why": decision.why})
        changes.mark_changed(message)
    changes.schedule(message, decision.until)


def _start_attempt(
    changes: MessageChanges, message: LockedMessage, decision: Send, account: Mapping[str, Any]
) -> LockedAttempt:
    row, kind = message.row, account["kind"]
    attempt = LockedAttempt(
        workspace_id=row["workspace_id"],
        id=ids.mint(ids.PREFIXES["attempt"]),
        message_id=row["id"],
        step=decision.step,
        number=decision.number,
        channel=decision.channel,
        provider=kind,
        provider_account_id=decision.route.account_id,
        receipts=decision.route.receipts,
        started_at=changes.now,
        recipient=row["addresses"][decision.channel] if PROVIDER_KINDS[kind].replies else None,
    )
    end_waits(changes, message)
    message.attempts.append(attempt)
    set_current_attempt(message, attempt)
    row["held_until"] = None
    if row["status"] in {Status.QUEUED, Status.SCHEDULED, Status.SENT}:
        row["status"] = Status.SENDING
    if decision.duplicate_possible and not row["duplicate_possible"]:
        row["duplicate_possible"] = True
        changes.add_timeline_entry(message, "duplicate_possible", {"why": "an earlier attempt may still arrive"})
    changes.mark_changed(message, attempt)
    changes.add_timeline_entry(
        message,
        "attempt.started",
        {
            "status": row["status"],
            "attempt_id": attempt.id,
            "step": attempt.step,
            "number": attempt.number,
            "channel": attempt.channel,
            "provider": kind,
            "provider_account_id": attempt.provider_account_id,
            "why": decision.why,
            "priority": account["priority"],
            "weight": account["weight"],
            "degraded": account["degraded"],
        },
    )
    return attempt
