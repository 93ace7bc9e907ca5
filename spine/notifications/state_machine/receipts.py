"""Apply a provider's report to its attempt: a delivery receipt here, a reply in `replies`."""

from typing import Final

from policies.fallback import is_success
from policies.receipts import Report, State, advance
from spine.notifications.locked_messages import LockedAttempt, LockedMessage
from spine.notifications.message_changes import MessageChanges
from spine.notifications.message_events import DELIVERED, MessageDelivered
from spine.notifications.message_models import Status
from spine.notifications.provider_calls import ProviderReport
from spine.notifications.state_machine.opt_outs import opt_out_by_provider
from spine.notifications.state_machine.replies import apply_reply, suggest_address
from spine.notifications.state_machine.transitions import (
    attempt_fields,
    fail_message,
    mark_accepted,
    set_current_attempt,
)

_REPORTED_STATES: Final[dict[str, Report]] = {
    "sent": "sent",
    "delivered": "delivered",
    "read": "read",
    "failed": "failed",
}
REPLIED: Final = "replied"
"""The status of a report that is a person's reply."""
_NUMBER_CHANGED: Final = "number_changed"


def apply_report(
    changes: MessageChanges, message: LockedMessage, attempt: LockedAttempt, report: ProviderReport
) -> None:
    """Apply one report. Reports may come in any order. An unknown status changes nothing; the receipt row keeps it."""
    if report.status == REPLIED:
        apply_reply(changes, message, attempt, report)  # the id of a reply is its own
        return
    if report.status == _NUMBER_CHANGED:
        suggest_address(changes, message, attempt, report)
        return
    attempt.provider_message_id = attempt.provider_message_id or report.provider_message_id
    reported = _REPORTED_STATES.get(report.status)
    state = advance(attempt.state, reported) if reported is not None else None
    if state == "failed":
        attempt.state, attempt.failed_at = state, changes.now
        attempt.failure, attempt.provider_code = report.failure or "recipient", report.code
    elif state is not None:
        _advance(changes, message, attempt, state)
    changes.mark_changed(message, attempt)
    changes.add_timeline_entry(
        message,
        "receipt",
        {
            "status": message.row["status"],
            "attempt_id": attempt.id,
            "reported": report.status,
            "reported_at": report.reported_at,
            "changed": state is not None,
        },
    )
    if report.opt_out is not None:
        opt_out_by_provider(changes, message, attempt, report.opt_out)
    if state is not None:
        _end_or_schedule(changes, message)


def _advance(changes: MessageChanges, message: LockedMessage, attempt: LockedAttempt, state: State) -> None:
    row = message.row
    late = attempt.state == "failed" or row["status"] == Status.FAILED
    attempt.state = state
    if attempt.accepted_at is None:
        mark_accepted(changes, message, attempt)
    if state not in {"delivered", "read"}:
        return
    if attempt.delivered_at is None:
        attempt.delivered_at = changes.now
        changes.note_delivery(attempt)
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
        set_current_attempt(message, attempt)
    row["status"] = Status.READ if row["read_at"] is not None else Status.DELIVERED
    changes.mark_changed(message, attempt)
    if first:
        changes.emit(message, DELIVERED, MessageDelivered, delivered_at=row["delivered_at"], **attempt_fields(attempt))


def _end_or_schedule(changes: MessageChanges, message: LockedMessage) -> None:
    """End the message on success, make its next step due at once after a failure, or leave it waiting."""
    row = message.row
    if any(is_success(message.policy, attempt.to_policy_attempt()) for attempt in message.attempts):
        changes.end(message)
    elif row["ended_at"] is not None and row["status"] == Status.SENT:
        # The policy took acceptance for success, and the provider reports a failure afterwards.
        fail_message(changes, message, "exhausted")
    elif message.queued and message.attempts[-1].state == "failed":
        changes.schedule(message, changes.now)
