"""The request to send a message: its body, and the recipient that it names."""

from datetime import timedelta
from typing import Annotated, Final

from pydantic import Field, StringConstraints, model_validator

from spine.directory.addresses import Email, Phone, email_address, phone_e164
from spine.kernel.errors import Unprocessable
from spine.kernel.resource import Body, Metadata, Timestamp
from spine.notifications.provider_kinds import Channel
from spine.notifications.template_vars import Vars
from spine.notifications.templates import Locale

MAX_AHEAD: Final = timedelta(days=366)
"""How far ahead `send_at` may lie."""
Reference = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class To(Body):
    """A person who is not in the address book."""

    phone: Phone | None = None
    email: Email | None = None

    @model_validator(mode="after")
    def _has_one(self) -> "To":
        if self.phone is None and self.email is None:
            raise ValueError("give a phone, an email, or both")
        return self


class MessageCreate(Body):
    contact_id: Reference | None = None
    to: Annotated[str, StringConstraints(min_length=3, max_length=320)] | To | None = Field(
        default=None, description="A phone number or e-mail address, where no contact is named."
    )
    template: Reference = Field(description="A template's slug, for its newest version, or the id of one version.")
    channels: Annotated[list[Channel], Field(min_length=1, max_length=3)] | None = Field(
        default=None,
        description="An ordered preference, never a broadcast. Without it, the policy that applies decides.",
    )
    policy: Reference | None = Field(default=None, description="A channel policy's slug or id.")
    vars: Vars = {}
    locale: Locale | None = None
    send_at: Timestamp | None = None
    metadata: Metadata = {}

    @model_validator(mode="after")
    def _one_recipient(self) -> "MessageCreate":
        if (self.contact_id is None) == (self.to is None):
            raise ValueError("give either contact_id or to")
        if self.channels is not None and len(set(self.channels)) < len(self.channels):
            raise ValueError("a channel stands in channels once")
        return self


def parse_recipient(to: str | To | None) -> tuple[str | None, str | None]:
    """Return (phone, email) of a recipient given without a contact. Raises Unprocessable `invalid_recipient`."""
    if to is None:
        return None, None
    if isinstance(to, To):
        return to.phone, to.email
    try:
        return (None, email_address(to)) if "@" in to else (phone_e164(to), None)
    except ValueError as error:
        raise Unprocessable(f"to: {error}", code="invalid_recipient", param="to") from error
