"""The visitor: the name, phone and e-mail fields that both pages ask for, and the contact they lead to (T-15)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from products.pages.submitted_fields import text_of
from spine.directory import contacts
from spine.directory.addresses import email_address, phone_e164
from spine.directory.contacts import ContactRow
from spine.kernel import ids
from spine.kernel.authentication import internal_caller
from spine.kernel.events import Actor
from spine.kernel.unit_of_work import UnitOfWork

MAX_NAME_CHARS: Final = 200
MAX_EMAIL_CHARS: Final = 254
MAX_PHONE_CHARS: Final = 40
HONEYPOT: Final = "website"
"""A field that people do not see and programs fill in. Filled in, it is refused like any other wrong field and shown: a browser
that filled it in by itself must not cost a person's ticket, and a pretended success would."""

Errors = dict[str, str]
"""What is wrong, by the name of the field."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who submitted a page, by what they typed. Addresses are normalised."""

    name: str
    phone: str | None
    email: str | None


def read_visitor(fields: Mapping[str, str], errors: Errors) -> Visitor:
    """Return the visitor. What is wrong goes into `errors`, in the order of the fields."""
    name = read_text(fields, "name", "Enter your name.", MAX_NAME_CHARS, errors)
    email = _address(fields, "email", email_address, MAX_EMAIL_CHARS, errors)
    phone = _address(fields, "phone", phone_e164, MAX_PHONE_CHARS, errors)
    if not text_of(fields, "email") and not text_of(fields, "phone"):
        errors["email"] = "Enter an e-mail address or a phone number, so that you can be reached."
    if text_of(fields, HONEYPOT):
        errors[HONEYPOT] = "Leave this field empty. It is there to stop programs that fill in every field."
    return Visitor(name, phone, email)


def read_text(fields: Mapping[str, str], field: str, missing: str, max_chars: int, errors: Errors) -> str:
    """Return a text that must be given, or put what is wrong with it into `errors`."""
    text = text_of(fields, field)
    if not text:
        errors[field] = missing
    elif len(text) > max_chars:
        errors[field] = _too_long(text, max_chars)
    return text


def _too_long(text: str, max_chars: int) -> str:
    return f"This is too long: it has {len(text)} characters, and {max_chars} are possible."


def _address(
    fields: Mapping[str, str], field: str, normalised: Callable[[str], str], max_chars: int, errors: Errors
) -> str | None:
    text = text_of(fields, field)
    if not text:
        return None
    if len(text) > max_chars:
        errors[field] = _too_long(text, max_chars)
        return None
    try:
        return normalised(text)
    except ValueError as error:
        reason = str(error)
        errors[field] = f"{reason[:1].upper()}{reason[1:].rstrip('.')}."
        return None


async def matched_contact(unit: UnitOfWork, visitor: Visitor) -> ContactRow:
    """Return the visitor's contact, found or created. From here on it is the actor of the transaction."""
    new_id = ids.mint(ids.PREFIXES["contact"])
    act_as(unit, new_id)
    row, _ = await contacts.match(unit, name=visitor.name, phone=visitor.phone, email=visitor.email, new_id=new_id)
    act_as(unit, row.id)
    return row


def act_as(unit: UnitOfWork, contact_id: str) -> None:
    """Make a contact the actor of the rest of the transaction."""
    caller = unit.caller
    actor = Actor(type="contact", id=contact_id)
    unit.caller = internal_caller(caller.workspace_id, caller.organisation_id, caller.env, actor)
