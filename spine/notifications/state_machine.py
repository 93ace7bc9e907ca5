"""How a message goes on: decisions, results, receipts and replies, applied to a locked message and noted in its ledger."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from policies.fallback import is_success, next_step, waits
from policies.fallback_values import Done, Fail, Route, Send, Skip, Wait, World
from policies.opt_outs import opt_out_keyword, opted_out
from policies.receipts import RANK, State, advance
from policies.receipts import Report as ReportedState
from policies.windows import dlt_window_closed
from spine.kernel import ids
from spine.kernel.events import Actor
from spine.notifications.locked_messages import LockedAttempt, LockedMessage, MessageChanges
from spine.notifications.message_models import (
    DELIVERED,
    FAILED,
    REPLIED,
    SENT,
    MessageDelivered,
    MessageEvent,
    MessageReplied,
    MessageSent,
    Status,
)
from spine.notifications.message_plan import accounts_of_step
from spine.notifications.preferences import CHANGED, PreferenceOut
from spine.notifications.provider_calls import ProviderReport, ProviderResult
from spine.notifications.provider_kinds import PROVIDER_KINDS

_STATES: Final[dict[str, ReportedState]] = {
    "sent": "sent",
    "delivered": "delivered",
    "read": "read",
    "failed": "failed",
}
_REPLIED: Final = "replied"
_MAX_REPLY_CHARS: Final = 4096


# --- deciding --------------------------------------------------------------------------------------------------------


def world_of(message: LockedMessage, accounts: Sequence[Mapping[str, Any]], now: datetime) -> World:
    """What surrounds a decision on this message. `accounts` are its workspace's, in order of priority."""
    row = message.row
    routes = {
        n: [
            Route(account["id"], PROVIDER_KINDS[account["kind"]].receipts)
            for account in accounts_of_step([one for one in accounts if one["channel"] == step.channel], step.providers)
        ]
        for n, step in enumerate(message.policy.steps)
    }
    blocked: dict[str, str] = {}
    for step in message.policy.steps:
        if row["stopped"] or opted_out(message.opt_outs, step.channel, row["category"]):
            blocked[step.channel] = "opted_out"
        elif dlt_window_closed(step.channel, row["addresses"][step.channel], row["dlt_category"], now):
            blocked[step.channel] = "window_closed"
    return World(routes, blocked, row["deadline_at"], row["held_until"])


def decide(
    changes: MessageChanges, message: LockedMessage, accounts: Sequence[Mapping[str, Any]]
) -> LockedAttempt | None:
    """Take the next step of a message that this worker has leased: an attempt to be made, or None."""
    row, now = message.row, changes.now
    if row["status"] == Status.CANCELLED:
        changes.end(message)
        return None
    world = world_of(message, accounts, now)
    decision = next_step(message.policy, [attempt.as_decided_on() for attempt in message.attempts], world, now)
    if isinstance(decision, Send | Wait | Fail):
        _note_skipped(changes, message, decision.skipped)
    if isinstance(decision, Send):
        kind = next(account["kind"] for account in accounts if account["id"] == decision.route.account_id)
        return _begin(changes, message, decision, kind)
    if isinstance(decision, Wait):
        if decision.why == "quiet_hours" and row["held_until"] != decision.until:
            row["held_until"] = decision.until
            changes.add_timeline_entry(message, "held", {"until": decision.until, "why": decision.why})
            changes.mark_changed(message)
        changes.schedule(message, decision.until)
    elif isinstance(decision, Fail):
        _give_up(changes, message, decision.why)
    else:
        assert isinstance(decision, Done)
        _leave(changes, message)
        changes.end(message)
    return None


def _note_skipped(changes: MessageChanges, message: LockedMessage, skipped: Sequence[Skip]) -> None:
    reasons: list[dict[str, Any]] = message.row["reasons"]
    known = {(reason["step"], reason["reason"]) for reason in reasons}
    for skip in skipped:
        if (skip.step, skip.reason) not in known:
            reasons.append({"step": skip.step, "channel": skip.channel, "reason": skip.reason})
            changes.add_timeline_entry(
                message, "step.skipped", {"step": skip.step, "channel": skip.channel, "reason": skip.reason}
            )
            changes.mark_changed(message)


def _begin(changes: MessageChanges, message: LockedMessage, decision: Send, kind: str) -> LockedAttempt:
    row = message.row
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
    )
    _leave(changes, message)
    message.attempts.append(attempt)
    row |= {
        "channel": decision.channel,
        "provider": kind,
        "provider_account_id": decision.route.account_id,
        "receipt_supported": decision.route.receipts,
        "held_until": None,
    }
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
        },
    )
    return attempt


def _leave(changes: MessageChanges, message: LockedMessage) -> None:
    """The message goes on from its attempts so far."""
    for attempt in message.attempts:
        if attempt.left_at is None:
            changes.leave(message, attempt)


def _give_up(changes: MessageChanges, message: LockedMessage, why: str) -> None:
    row = message.row
    _leave(changes, message)
    tried = [
        {
            "step": attempt.step,
            "channel": attempt.channel,
            "reason": _reason(attempt),
            "attempt_id": attempt.id,
            "provider": attempt.provider,
            "provider_code": attempt.provider_code,
        }
        for attempt in message.attempts
    ]
    row["reasons"] = sorted([*row["reasons"], *tried], key=lambda reason: int(reason["step"]))
    if why != "exhausted":
        last = len(message.policy.steps) - 1
        step = message.attempts[-1].step if message.attempts else 0
        row["reasons"].append(
            {"step": min(step, last), "channel": message.policy.steps[min(step, last)].channel, "reason": why}
        )
    row["status"] = Status.FAILED
    changes.end(message)
    changes.add_timeline_entry(message, "message.failed", {"status": Status.FAILED, "why": why})
    changes.emit(message, FAILED, MessageEvent)


def _reason(attempt: LockedAttempt) -> str:
    if attempt.outcome == "unknown" and attempt.state == "sending":
        return "outcome_unknown"
    return (attempt.failure or "failed") if attempt.state == "failed" else "delivery_unknown"


# --- results ---------------------------------------------------------------------------------------------------------


def take_result(
    changes: MessageChanges, message: LockedMessage, attempt: LockedAttempt, result: ProviderResult
) -> None:
    """Record what a provider answered. A second answer to the same attempt changes nothing."""
    if attempt.outcome is not None:
        return
    step = message.policy.steps[attempt.step]
    tries = sum(
        one.step == attempt.step and one.provider_account_id == attempt.provider_account_id for one in message.attempts
    )
    attempt.outcome, attempt.failure, attempt.ended_at = result.outcome, result.failure, changes.now
    attempt.provider_code, attempt.provider_http, attempt.raw = result.code, result.http_status, result.raw
    attempt.provider_message_id = result.provider_message_id or attempt.provider_message_id
    attempt.wait_until, attempt.retry_at = waits(
        step, result.outcome, result.failure, result.retry_after_s, tries, changes.now
    )
    if result.outcome == "rejected" and RANK[attempt.state] < RANK["accepted"]:
        attempt.state, attempt.failed_at = "failed", changes.now
    elif result.outcome == "accepted" and attempt.state == "sending":
        attempt.state = "accepted"
    if result.outcome == "accepted" and attempt.accepted_at is None:
        _accepted(changes, message, attempt)
    changes.mark_changed(message, attempt)
    changes.add_timeline_entry(
        message,
        f"attempt.{result.outcome}",
        {
            "status": message.row["status"],
            "attempt_id": attempt.id,
            "class": result.failure,
            "provider_code": result.code,
            "provider_message_id": attempt.provider_message_id,
            "wait_until": attempt.wait_until,
            "retry_at": attempt.retry_at,
        },
    )


def _accepted(changes: MessageChanges, message: LockedMessage, attempt: LockedAttempt) -> None:
    """A provider has taken the attempt, as its answer or a receipt says."""
    row = message.row
    attempt.accepted_at = changes.now
    row["sent_at"] = row["sent_at"] or changes.now
    if row["status"] in {Status.QUEUED, Status.SCHEDULED, Status.SENDING}:
        row["status"] = Status.SENT
    changes.mark_changed(message, attempt)
    changes.emit(message, SENT, MessageSent, **_of(attempt))


def _of(attempt: LockedAttempt) -> dict[str, Any]:
    return {
        "attempt_id": attempt.id,
        "channel": attempt.channel,
        "provider": attempt.provider,
        "provider_account_id": attempt.provider_account_id,
        "provider_message_id": attempt.provider_message_id,
    }


# --- receipts and replies --------------------------------------------------------------------------------------------


def take_report(
    changes: MessageChanges, message: LockedMessage, attempt: LockedAttempt, report: ProviderReport
) -> None:
    """Apply one report, in any order with the others. What is unknown to us stays in the receipts as it came."""
    attempt.provider_message_id = attempt.provider_message_id or report.provider_message_id
    if report.status == _REPLIED:
        _take_reply(changes, message, attempt, report)
        return
    state = _STATES.get(report.status)
    moved = advance(attempt.state, state) if state is not None else None
    if moved == "failed":
        attempt.state, attempt.failed_at = moved, changes.now
        attempt.failure, attempt.provider_code = "recipient", report.code
    elif moved is not None:
        _advance(changes, message, attempt, moved)
    changes.mark_changed(message, attempt)
    changes.add_timeline_entry(
        message,
        "receipt",
        {
            "status": message.row["status"],
            "attempt_id": attempt.id,
            "reported": report.status,
            "reported_at": report.reported_at,
            "changed": moved is not None,
        },
    )
    if moved is not None:
        _look_for_end(changes, message)


def _advance(changes: MessageChanges, message: LockedMessage, attempt: LockedAttempt, state: State) -> None:
    row = message.row
    late = attempt.state == "failed" or row["status"] == Status.FAILED
    attempt.state = state
    if attempt.accepted_at is None:
        _accepted(changes, message, attempt)
    if state not in {"delivered", "read"}:
        return
    attempt.delivered_at = attempt.delivered_at or changes.now
    attempt.late_success = attempt.late_success or late
    row["late_success"] = row["late_success"] or late
    others = [one for one in message.attempts if one is not attempt and one.state != "failed"]
    if any(one.outcome == "unknown" or one.accepted_at is not None for one in others):
        row["duplicate_possible"] = True
    if state == "read":
        attempt.read_at = row["read_at"] = row["read_at"] or changes.now
    first = row["delivered_at"] is None
    if first:
        row["delivered_at"] = changes.now
        row |= {
            "channel": attempt.channel,
            "provider": attempt.provider,
            "provider_account_id": attempt.provider_account_id,
            "receipt_supported": attempt.receipts,
        }
    row["status"] = Status.READ if row["read_at"] is not None else Status.DELIVERED
    changes.mark_changed(message, attempt)
    if first:
        changes.emit(message, DELIVERED, MessageDelivered, delivered_at=row["delivered_at"], **_of(attempt))


def _look_for_end(changes: MessageChanges, message: LockedMessage) -> None:
    """After a receipt: the message has ended, or its next step is due at once, or it waits on."""
    row = message.row
    if any(is_success(message.policy, attempt.as_decided_on()) for attempt in message.attempts):
        changes.end(message)
    elif row["ended_at"] is not None and row["status"] == Status.SENT:
        # Accepted was enough for its policy, and now the provider says that it failed after all.
        _give_up(changes, message, "exhausted")
    elif message.queued and message.attempts[-1].state == "failed":
        changes.schedule(message, changes.now)


def _take_reply(
    changes: MessageChanges, message: LockedMessage, attempt: LockedAttempt, report: ProviderReport
) -> None:
    row = message.row
    text = (report.text or "")[:_MAX_REPLY_CHARS]
    asked = opt_out_keyword(text)
    person = Actor(type="contact", id=row["contact_id"]) if row["contact_id"] else changes.actor
    changes.mark_changed(message, attempt)
    changes.add_timeline_entry(message, "message.replied", {"attempt_id": attempt.id, "wish": asked}, actor=person)
    if row["contact_id"]:
        detail = {"message_id": row["id"], "channel": attempt.channel, "wish": asked}
        changes.add_timeline_entry(message, "message.replied", detail, actor=person, subject_id=row["contact_id"])
    more = _of(attempt) | {
        "reply": text,
        "reply_id": report.provider_message_id,
        "wish": asked,
        "replied_at": changes.now,
    }
    del more["provider_message_id"]
    changes.emit(message, REPLIED, MessageReplied, actor=person, **more)
    if asked is not None:
        _heed(changes, message, attempt.channel, asked == "stop", person)


def _heed(changes: MessageChanges, message: LockedMessage, channel: str, out: bool, person: Actor) -> None:
    """Do as the person wishes: on this channel for this category from now on, and for this message altogether."""
    row = message.row
    if out and not row["stopped"]:
        row["stopped"] = True
        changes.mark_changed(message)
        left = [step.channel for n, step in enumerate(message.policy.steps) if n > message.attempts[-1].step]
        changes.add_timeline_entry(message, "steps.cancelled", {"channels": left, "why": "opted_out"}, actor=person)
    contact_id = row["contact_id"]
    if contact_id is None or opted_out(message.opt_outs, channel, row["category"]) == out:
        return
    id = ids.mint(ids.PREFIXES["preference"])
    values = {
        "contact_id": contact_id,
        "channel": channel,
        "category": row["category"],
        "opted_out": out,
        "source": "reply",
    }
    changes.add_preference({"workspace_id": row["workspace_id"], "id": id, **values})
    made_at = ids.created_at(id)
    told = PreferenceOut(id=id, created_at=made_at, updated_at=made_at, version=1, metadata={}, **values)
    changes.publish(message, CHANGED, told, 1, person)
    change = {"field": "opted_out", "old": not out, "new": out}
    changes.add_timeline_entry(
        message, "preference.changed", values, actor=person, subject_id=contact_id, changes=[change]
    )
