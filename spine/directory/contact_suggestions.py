"""Changes of a contact that somebody else tells of. Nobody's address is rewritten by them (failure case 21)."""

from pydantic import BaseModel

from spine.kernel.events import EventType


class ContactChangeSuggested(BaseModel):
    """A field of a contact that has another value now, as its provider tells."""

    contact_id: str
    field: str
    old: str | None
    new: str


CHANGE_SUGGESTED = EventType(
    "contact.change_suggested", ContactChangeSuggested, "A provider tells that a person has another address now."
)
