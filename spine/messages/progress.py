"""How a message goes on: decisions, results, receipts and replies, applied to a locked message and noted in its ledger."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from policies.fallback import Done, Fail, Route, Send, Skip, Wait, World, is_success, next_step, waits
from policies.receipts import RANK, State, advance
from policies.receipts import Report as ReportedState
from policies.windows import dlt_window_closed
from policies.wishes import opted_out, wish
from spine import ids
from spine.events import Actor
from spine.messages.calls import Report, Result
from spine.messages.kinds import KINDS
from spine.messages.live import Ledger, LiveAttempt, LiveMessage
from spine.messages.models import (
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
from spine.messages.preferences import CHANGED, PreferenceOut
from spine.messages.strategy import chosen

_STATES: Final[dict[str, ReportedState]] = {
    "sent": "sent",
    "delivered": "delivered",
    "read": "read",
    "failed": "failed",
}
_REPLIED: Final = "replied"
_MAX_REPLY_CHARS: Final = 4096


# --- deciding --------------------------------------------------------------------------------------------------------


def world_of(message: LiveMessage, accounts: Sequence[Mapping[str, Any]], now: datetime) -> World:
    """What surrounds a decision on this message. `accounts` are its workspace's, in order of priority."""
    row = message.row
    routes = {
        n: [
            Route(account["id"], KINDS[account["kind"]].receipts)
            for account in chosen([one for one in accounts if one["channel"] == step.channel], step.providers)
        ]
        for n, step in enumerate(message.policy.steps)
    }
    blocked: dict[str, str] = {}
    for step in message.policy.steps:
        if row["stopped"] or opted_out(message.wishes, step.channel, row["category"]):
            blocked[step.channel] = "opted_out"
        elif dlt_window_closed(step.channel, row["addresses"][step.channel], row["dlt_category"], now):
            blocked[step.channel] = "window_closed"
    return World(routes, blocked, row["deadline_at"], row["held_until"])


def decide(ledger: Ledger, message: LiveMessage, accounts: Sequence[Mapping[str, Any]]) -> LiveAttempt | None:
    """Take the next step of a message that this worker has leased: an attempt to be made, or None."""
    row, now = message.row, ledger.now
    if row["status"] == Status.CANCELLED:
        ledger.end(message)
        return None
    world = world_of(message, accounts, now)
    decision = next_step(message.policy, [attempt.as_decided_on() for attempt in message.attempts], world, now)
    if isinstance(decision, Send | Wait | Fail):
        _note_skipped(ledger, message, decision.skipped)
    if isinstance(decision, Send):
        kind = next(account["kind"] for account in accounts if account["id"] == decision.route.account_id)
        return _begin(ledger, message, decision, kind)
    if isinstance(decision, Wait):
        if decision.why == "quiet_hours" and row["held_until"] != decision.until:
            row["held_until"] = decision.until
            ledger.note(message, "held", {"until": decision.until, "why": decision.why})
            ledger.touch(message)
        ledger.requeue(message, decision.until)
    elif isinstance(decision, Fail):
        _give_up(ledger, message, decision.why)
    else:
        assert isinstance(decision, Done)
        _leave(ledger, message)
        ledger.end(message)
    return None


def _note_skipped(ledger: Ledger, message: LiveMessage, skipped: Sequence[Skip]) -> None:
    reasons: list[dict[str, Any]] = message.row["reasons"]
    known = {(reason["step"], reason["reason"]) for reason in reasons}
    for skip in skipped:
        if (skip.step, skip.reason) not in known:
            reasons.append({"step": skip.step, "channel": skip.channel, "reason": skip.reason})
            ledger.note(message, "step.skipped", {"step": skip.step, "channel": skip.channel, "reason": skip.reason})
            ledger.touch(message)


def _begin(ledger: Ledger, message: LiveMessage, decision: Send, kind: str) -> LiveAttempt:
    row = message.row
    attempt = LiveAttempt(
        workspace_id=row["workspace_id"],
        id=ids.mint(ids.PREFIXES["attempt"]),
        message_id=row["id"],
        step=decision.step,
        number=decision.number,
        channel=decision.channel,
        provider=kind,
        provider_account_id=decision.route.account_id,
        receipts=decision.route.receipts,
        started_at=ledger.now,
    )
    _leave(ledger, message)
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
        ledger.note(message, "duplicate_possible", {"why": "an earlier attempt may still arrive"})
    ledger.touch(message, attempt)
    ledger.note(
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


def _leave(ledger: Ledger, message: LiveMessage) -> None:
    """The message goes on from its attempts so far."""
    for attempt in message.attempts:
        if attempt.left_at is None:
            ledger.leave(message, attempt)


def _give_up(ledger: Ledger, message: LiveMessage, why: str) -> None:
    row = message.row
    _leave(ledger, message)
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
    ledger.end(message)
    ledger.note(message, "message.failed", {"status": Status.FAILED, "why": why})
    ledger.emit(message, FAILED, MessageEvent)


def _reason(attempt: LiveAttempt) -> str:
    if attempt.outcome == "unknown" and attempt.state == "sending":
        return "outcome_unknown"
    return (attempt.failure or "failed") if attempt.state == "failed" else "delivery_unknown"


# --- results ---------------------------------------------------------------------------------------------------------


def take_result(ledger: Ledger, message: LiveMessage, attempt: LiveAttempt, result: Result) -> None:
    """Record what a provider answered. A second answer to the same attempt changes nothing."""
    if attempt.outcome is not None:
        return
    step = message.policy.steps[attempt.step]
    tries = sum(
        one.step == attempt.step and one.provider_account_id == attempt.provider_account_id for one in message.attempts
    )
    attempt.outcome, attempt.failure, attempt.ended_at = result.outcome, result.failure, ledger.now
    attempt.provider_code, attempt.provider_http, attempt.raw = result.code, result.http_status, result.raw
    attempt.provider_message_id = result.provider_message_id or attempt.provider_message_id
    attempt.wait_until, attempt.retry_at = waits(
        step, result.outcome, result.failure, result.retry_after_s, tries, ledger.now
    )
    if result.outcome == "rejected" and RANK[attempt.state] < RANK["accepted"]:
        attempt.state, attempt.failed_at = "failed", ledger.now
    elif result.outcome == "accepted" and attempt.state == "sending":
        attempt.state = "accepted"
    if result.outcome == "accepted" and attempt.accepted_at is None:
        _accepted(ledger, message, attempt)
    ledger.touch(message, attempt)
    ledger.note(
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


def _accepted(ledger: Ledger, message: LiveMessage, attempt: LiveAttempt) -> None:
    """A provider has taken the attempt, as its answer or a receipt says."""
    row = message.row
    attempt.accepted_at = ledger.now
    row["sent_at"] = row["sent_at"] or ledger.now
    if row["status"] in {Status.QUEUED, Status.SCHEDULED, Status.SENDING}:
        row["status"] = Status.SENT
    ledger.touch(message, attempt)
    ledger.emit(message, SENT, MessageSent, **_of(attempt))


def _of(attempt: LiveAttempt) -> dict[str, Any]:
    return {
        "attempt_id": attempt.id,
        "channel": attempt.channel,
        "provider": attempt.provider,
        "provider_account_id": attempt.provider_account_id,
        "provider_message_id": attempt.provider_message_id,
    }


# --- receipts and replies --------------------------------------------------------------------------------------------


def take_report(ledger: Ledger, message: LiveMessage, attempt: LiveAttempt, report: Report) -> None:
    """Apply one report, in any order with the others. What is unknown to us stays in the receipts as it came."""
    attempt.provider_message_id = attempt.provider_message_id or report.provider_message_id
    if report.status == _REPLIED:
        _take_reply(ledger, message, attempt, report)
        return
    state = _STATES.get(report.status)
    moved = advance(attempt.state, state) if state is not None else None
    if moved == "failed":
        attempt.state, attempt.failed_at = moved, ledger.now
        attempt.failure, attempt.provider_code = "recipient", report.code
    elif moved is not None:
        _advance(ledger, message, attempt, moved)
    ledger.touch(message, attempt)
    ledger.note(
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
        _look_for_end(ledger, message)


def _advance(ledger: Ledger, message: LiveMessage, attempt: LiveAttempt, state: State) -> None:
    row = message.row
    late = attempt.state == "failed" or row["status"] == Status.FAILED
    attempt.state = state
    if attempt.accepted_at is None:
        _accepted(ledger, message, attempt)
    if state not in {"delivered", "read"}:
        return
    attempt.delivered_at = attempt.delivered_at or ledger.now
    attempt.late_success = attempt.late_success or late
    row["late_success"] = row["late_success"] or late
    others = [one for one in message.attempts if one is not attempt and one.state != "failed"]
    if any(one.outcome == "unknown" or one.accepted_at is not None for one in others):
        row["duplicate_possible"] = True
    if state == "read":
        attempt.read_at = row["read_at"] = row["read_at"] or ledger.now
    first = row["delivered_at"] is None
    if first:
        row["delivered_at"] = ledger.now
        row |= {
            "channel": attempt.channel,
            "provider": attempt.provider,
            "provider_account_id": attempt.provider_account_id,
            "receipt_supported": attempt.receipts,
        }
    row["status"] = Status.READ if row["read_at"] is not None else Status.DELIVERED
    ledger.touch(message, attempt)
    if first:
        ledger.emit(message, DELIVERED, MessageDelivered, delivered_at=row["delivered_at"], **_of(attempt))


def _look_for_end(ledger: Ledger, message: LiveMessage) -> None:
    """After a receipt: the message has ended, or its next step is due at once, or it waits on."""
    row = message.row
    if any(is_success(message.policy, attempt.as_decided_on()) for attempt in message.attempts):
        ledger.end(message)
    elif row["ended_at"] is not None and row["status"] == Status.SENT:
        # Accepted was enough for its policy, and now the provider says that it failed after all.
        _give_up(ledger, message, "exhausted")
    elif message.queued and message.attempts[-1].state == "failed":
        ledger.requeue(message, ledger.now)


def _take_reply(ledger: Ledger, message: LiveMessage, attempt: LiveAttempt, report: Report) -> None:
    row = message.row
    text = (report.text or "")[:_MAX_REPLY_CHARS]
    asked = wish(text)
    person = Actor(type="contact", id=row["contact_id"]) if row["contact_id"] else ledger.actor
    ledger.touch(message, attempt)
    ledger.note(message, "message.replied", {"attempt_id": attempt.id, "wish": asked}, actor=person)
    if row["contact_id"]:
        detail = {"message_id": row["id"], "channel": attempt.channel, "wish": asked}
        ledger.note(message, "message.replied", detail, actor=person, subject_id=row["contact_id"])
    more = _of(attempt) | {
        "reply": text,
        "reply_id": report.provider_message_id,
        "wish": asked,
        "replied_at": ledger.now,
    }
    del more["provider_message_id"]
    ledger.emit(message, REPLIED, MessageReplied, actor=person, **more)
    if asked is not None:
        _heed(ledger, message, attempt.channel, asked == "stop", person)


def _heed(ledger: Ledger, message: LiveMessage, channel: str, out: bool, person: Actor) -> None:
    """Do as the person wishes: on this channel for this category from now on, and for this message altogether."""
    row = message.row
    if out and not row["stopped"]:
        row["stopped"] = True
        ledger.touch(message)
        left = [step.channel for n, step in enumerate(message.policy.steps) if n > message.attempts[-1].step]
        ledger.note(message, "steps.cancelled", {"channels": left, "why": "opted_out"}, actor=person)
    contact_id = row["contact_id"]
    if contact_id is None or opted_out(message.wishes, channel, row["category"]) == out:
        return
    id = ids.mint(ids.PREFIXES["preference"])
    values = {
        "contact_id": contact_id,
        "channel": channel,
        "category": row["category"],
        "opted_out": out,
        "source": "reply",
    }
    ledger.prefer({"workspace_id": row["workspace_id"], "id": id, **values})
    made_at = ids.created_at(id)
    told = PreferenceOut(id=id, created_at=made_at, updated_at=made_at, version=1, metadata={}, **values)
    ledger.publish(message, CHANGED, told, 1, person)
    change = {"field": "opted_out", "old": not out, "new": out}
    ledger.note(message, "preference.changed", values, actor=person, subject_id=contact_id, changes=[change])
