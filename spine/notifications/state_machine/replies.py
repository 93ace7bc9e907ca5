"""Apply a person's reply: emit it, and opt the person out or in where the reply is STOP or START."""

from typing import Final

from policies.opt_outs import opt_out_keyword, opted_out
from spine.kernel import ids
from spine.kernel.events import Actor
from spine.notifications.locked_messages import LockedAttempt, LockedMessage
from spine.notifications.message_changes import MessageChanges
from spine.notifications.message_events import REPLIED, MessageReplied
from spine.notifications.preferences import CHANGED, PreferenceOut
from spine.notifications.provider_calls import ProviderReport
from spine.notifications.state_machine.transitions import attempt_fields

_MAX_REPLY_CHARS: Final = 4096


def apply_reply(
    changes: MessageChanges, message: LockedMessage, attempt: LockedAttempt, report: ProviderReport
) -> None:
    """Record a reply on the timelines of the message and its contact, emit it, and follow its STOP or START."""
    row = message.row
    text = (report.text or "")[:_MAX_REPLY_CHARS]
    keyword = opt_out_keyword(text)
    person = Actor(type="contact", id=row["contact_id"]) if row["contact_id"] else changes.actor
    changes.mark_changed(message, attempt)
    changes.add_timeline_entry(message, "message.replied", {"attempt_id": attempt.id, "wish": keyword}, actor=person)
    if row["contact_id"]:
        detail = {"message_id": row["id"], "channel": attempt.channel, "wish": keyword}
        changes.add_timeline_entry(message, "message.replied", detail, actor=person, subject_id=row["contact_id"])
    fields = attempt_fields(attempt) | {
        "reply": text,
        "reply_id": report.provider_message_id,
        "wish": keyword,
        "replied_at": changes.now,
    }
    del fields["provider_message_id"]
    changes.emit(message, REPLIED, MessageReplied, actor=person, **fields)
    if keyword is not None:
        _set_opt_out(changes, message, attempt.channel, keyword == "stop", person)


def _set_opt_out(changes: MessageChanges, message: LockedMessage, channel: str, out: bool, person: Actor) -> None:
    """Opt the contact out or in on this channel for this category. STOP also cancels the message's further steps."""
    row = message.row
    if out and not row["stopped"]:
        row["stopped"] = True
        changes.mark_changed(message)
        cancelled = [step.channel for n, step in enumerate(message.policy.steps) if n > message.attempts[-1].step]
        detail = {"channels": cancelled, "why": "opted_out"}
        changes.add_timeline_entry(message, "steps.cancelled", detail, actor=person)
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
    created_at = ids.created_at(id)
    preference = PreferenceOut(id=id, created_at=created_at, updated_at=created_at, version=1, metadata={}, **values)
    changes.add_event(message, CHANGED, preference, 1, person)
    change = {"field": "opted_out", "old": not out, "new": out}
    changes.add_timeline_entry(
        message, "preference.changed", values, actor=person, subject_id=contact_id, changes=[change]
    )
