"""Apply a person's reply: emit it, and opt the person out or in where the reply is STOP or START."""

from typing import Final

from policies.opt_outs import opt_out_keyword
from spine.directory.contact_suggestions import CHANGE_SUGGESTED, ContactChangeSuggested
from spine.kernel.events import Actor
from spine.notifications.locked_messages import LockedAttempt, LockedMessage
from spine.notifications.message_changes import MessageChanges
from spine.notifications.message_events import REPLIED, MessageReplied
from spine.notifications.provider_calls import ProviderReport
from spine.notifications.state_machine.opt_outs import set_opt_out
from spine.notifications.state_machine.transitions import attempt_fields

_MAX_REPLY_CHARS: Final = 4096


def apply_reply(
    changes: MessageChanges, message: LockedMessage, attempt: LockedAttempt, report: ProviderReport
) -> None:
    """Record a reply on the timelines of the message and its contact, emit it, and follow its STOP or START."""
    row = message.row
    text = (report.text or "")[:_MAX_REPLY_CHARS]
    wish = report.wish or opt_out_keyword(text)
    person = Actor(type="contact", id=message.person.id) if message.person.id else changes.actor
    changes.mark_changed(message, attempt)
    changes.add_timeline_entry(message, "message.replied", {"attempt_id": attempt.id, "wish": wish}, actor=person)
    if message.person.id:
        detail = {"message_id": row["id"], "channel": attempt.channel, "wish": wish}
        changes.add_timeline_entry(message, "message.replied", detail, actor=person, subject_id=message.person.id)
    fields = attempt_fields(attempt) | {
        "reply": text,
        "reply_id": report.provider_message_id,
        "wish": wish,
        "replied_at": changes.now,
    }
    del fields["provider_message_id"]
    changes.emit(message, REPLIED, MessageReplied, actor=person, **fields)
    if wish is None:
        return
    if wish == "stop":
        _cancel_further_steps(changes, message, person)
    set_opt_out(changes, message, attempt.channel, row["category"], out=wish == "stop", source="reply", actor=person)


def _cancel_further_steps(changes: MessageChanges, message: LockedMessage, person: Actor) -> None:
    if message.row["stopped"]:
        return
    message.row["stopped"] = True
    changes.mark_changed(message)
    cancelled = [step.channel for n, step in enumerate(message.policy.steps) if n > message.attempts[-1].step]
    detail = {"channels": cancelled, "why": "opted_out"}
    changes.add_timeline_entry(message, "steps.cancelled", detail, actor=person)


def suggest_address(
    changes: MessageChanges, message: LockedMessage, attempt: LockedAttempt, report: ProviderReport
) -> None:
    """Tell that the person has another number now. The contact is not changed (failure case 21)."""
    if message.person.id is None or report.new_address is None:
        return
    suggested = ContactChangeSuggested(
        contact_id=message.person.id, field="phone", old=report.sender, new=report.new_address
    )
    changes.add_event(message, CHANGE_SUGGESTED, suggested, 1)
    changes.add_timeline_entry(
        message, "contact.change_suggested", {"channel": attempt.channel}, subject_id=message.person.id,
        changes=[{"field": "phone", "old": report.sender, "new": report.new_address}],
    )  # fmt: skip
