"""Opt a person out or in: by their own reply, or by what a provider tells."""

from typing import Any, Literal

from policies.opt_outs import OptOut, opted_out
from spine.directory.contacts import CREATED, ContactOut
from spine.kernel import ids
from spine.kernel.events import Actor
from spine.notifications.locked_messages import LockedAttempt, LockedMessage
from spine.notifications.message_changes import MessageChanges
from spine.notifications.preferences import CHANGED, PreferenceOut

Source = Literal["reply", "provider"]


def opt_out_by_provider(changes: MessageChanges, message: LockedMessage, attempt: LockedAttempt, category: str) -> None:
    """Note that a person wants no more of a category on an attempt's channel, as its provider tells."""
    set_opt_out(changes, message, attempt.channel, category, out=True, source="provider", actor=changes.actor)


def set_opt_out(
    changes: MessageChanges,
    message: LockedMessage,
    channel: str,
    category: str,
    *,
    out: bool,
    source: Source,
    actor: Actor,
) -> None:
    """Opt the person of a message out or in, unless they are already. One without a contact gets one, so that it holds."""
    if opted_out(message.opt_outs, channel, category) == out:
        return
    if message.person.id is None:
        message.person.id = _add_contact(changes, message, channel, actor)
    contact_id, workspace_id = message.person.id, message.row["workspace_id"]
    message.opt_outs = [one for one in message.opt_outs if (one.channel, one.category) != (channel, category)]
    message.opt_outs.append(OptOut(channel, category, out))
    id = ids.mint(ids.PREFIXES["preference"])
    values: dict[str, Any] = {
        "contact_id": contact_id,
        "channel": channel,
        "category": category,
        "opted_out": out,
        "source": source,
    }
    changes.mark_changed(message)
    changes.add_preference({"workspace_id": workspace_id, "id": id, **values})
    created_at = ids.created_at(id)
    preference = PreferenceOut(id=id, created_at=created_at, updated_at=created_at, version=1, metadata={}, **values)
    changes.add_event(message, CHANGED, preference, 1, actor)
    change = {"field": "opted_out", "old": not out, "new": out}
    changes.add_timeline_entry(
        message, "preference.changed", values, actor=actor, subject_id=contact_id, changes=[change]
    )


def _add_contact(changes: MessageChanges, message: LockedMessage, channel: str, actor: Actor) -> str:
    """Add a contact with the address that the message went to. Returns its id."""
    address = message.row["addresses"][channel]
    id = ids.mint(ids.PREFIXES["contact"])
    phone, email = (None, address) if channel == "email" else (address, None)
    values = {"id": id, "name": address, "phone_e164": phone, "email": email}
    changes.add_contact({"workspace_id": message.row["workspace_id"], **values})
    created_at = ids.created_at(id)
    contact = ContactOut(
        created_at=created_at, updated_at=created_at, version=1, metadata={}, owner_id=None, fields={}, **values
    )
    changes.add_event(message, CREATED, contact, 1, actor)
    changes.add_timeline_entry(message, "contact.created", {"why": "opted_out"}, actor=actor, subject_id=id)
    return id
