"""Record the result of a call to a provider."""

from policies.fallback import waits
from policies.receipts import RANK
from spine.notifications.locked_messages import LockedAttempt, LockedMessage
from spine.notifications.message_changes import MessageChanges
from spine.notifications.provider_calls import FREE, Charge, ProviderResult
from spine.notifications.state_machine.opt_outs import opt_out_by_provider
from spine.notifications.state_machine.transitions import mark_accepted


def record_result(
    changes: MessageChanges,
    message: LockedMessage,
    attempt: LockedAttempt,
    result: ProviderResult,
    charge: Charge = FREE,
) -> None:
    """Record a provider's result. A second result for the same attempt changes nothing.

    `charge` is what the provider asks for a message that it took, or may have taken.
    """
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
    if result.outcome != "rejected" and charge.cost_micros is not None:
        changes.charge(attempt, charge.units, charge.cost_micros)
    if result.outcome == "rejected" and RANK[attempt.state] < RANK["accepted"]:
        attempt.state, attempt.failed_at = "failed", changes.now
    elif result.outcome == "accepted" and attempt.state == "sending":
        attempt.state = "accepted"
    if result.outcome != "rejected" and message.row["delivered_at"] is not None and attempt.delivered_at is None:
        message.row["duplicate_possible"] = True  # another attempt was delivered during this call
    if result.outcome == "accepted" and attempt.accepted_at is None:
        mark_accepted(changes, message, attempt)
    if result.opt_out is not None:
        opt_out_by_provider(changes, message, attempt, result.opt_out)
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
            "cost_micros": attempt.cost_micros,
        },
    )
