"""Transitions that several parts of the state machine make: accepted, no longer waited for, failed."""

from typing import Any

from spine.notifications.locked_messages import LockedAttempt, LockedMessage
from spine.notifications.message_changes import MessageChanges
from spine.notifications.message_events import FAILED, SENT, MessageEvent, MessageSent
from spine.notifications.message_models import Status


def attempt_fields(attempt: LockedAttempt) -> dict[str, Any]:
    """Return the fields by which events name an attempt."""
    return {
        "attempt_id": attempt.id,
        "channel": attempt.channel,
        "provider": attempt.provider,
        "provider_account_id": attempt.provider_account_id,
        "provider_message_id": attempt.provider_message_id,
    }


def set_current_attempt(message: LockedMessage, attempt: LockedAttempt) -> None:
    """Show this attempt's channel and provider as the message's own."""
    message.row |= {
        "channel": attempt.channel,
        "provider": attempt.provider,
        "provider_account_id": attempt.provider_account_id,
        "receipt_supported": attempt.receipts,
    }


def mark_accepted(changes: MessageChanges, message: LockedMessage, attempt: LockedAttempt) -> None:
    """Record that a provider accepted the attempt, as its response or a receipt says."""
    row = message.row
    attempt.accepted_at = changes.now
    row["sent_at"] = row["sent_at"] or changes.now
    if row["status"] in {Status.QUEUED, Status.SCHEDULED, Status.SENDING}:
        row["status"] = Status.SENT
    changes.mark_changed(message, attempt)
    changes.emit(message, SENT, MessageSent, **attempt_fields(attempt))


def end_waits(changes: MessageChanges, message: LockedMessage) -> None:
    """Stop waiting for the receipts of all attempts so far."""
    for attempt in message.attempts:
        if attempt.left_at is None:
            changes.end_wait(message, attempt)


def fail_message(changes: MessageChanges, message: LockedMessage, why: str) -> None:
    """End the message as failed. `reasons` then names every skipped step and every attempt, in order of the steps."""
    row = message.row
    end_waits(changes, message)
    attempt_reasons = [
        {
            "step": attempt.step,
            "channel": attempt.channel,
            "reason": _failure_reason(attempt),
            "attempt_id": attempt.id,
            "provider": attempt.provider,
            "provider_code": attempt.provider_code,
        }
        for attempt in message.attempts
    ]
    row["reasons"] = sorted([*row["reasons"], *attempt_reasons], key=lambda reason: int(reason["step"]))
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


def _failure_reason(attempt: LockedAttempt) -> str:
    if attempt.outcome == "unknown" and attempt.state == "sending":
        return "outcome_unknown"
    return (attempt.failure or "failed") if attempt.state == "failed" else "delivery_unknown"
