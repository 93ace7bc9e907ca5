"""Texts that the CRM takes, and its references to contacts and users."""

from typing import Annotated, Final

from pydantic import Field, StringConstraints
from sqlalchemy import select

from spine.directory.contacts import CONTACT, ContactRow
from spine.directory.users import USER, UserRow
from spine.kernel import ids, store
from spine.kernel.unit_of_work import UnitOfWork

Reference = Annotated[str, StringConstraints(min_length=1, max_length=64)]
MAX_TEXT: Final = 2000
Text = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT, strip_whitespace=True)]
"""A text that a person wrote."""
Channel = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$"),
    Field(description="How the person is in touch: `voice`, `chat`, or a word of your own."),
]


async def known_contact(unit: UnitOfWork, id: str) -> ContactRow:
    """Return the contact. Raises Unprocessable `reference_not_found`, the same for unknown and foreign ids."""
    row: ContactRow | None = None
    if ids.is_id(id, CONTACT.prefix):
        query = select(ContactRow).where(ContactRow.workspace_id == unit.workspace_id, ContactRow.id == id)
        row = await unit.session.scalar(query)
    if row is None:
        raise store.reference_not_found("contact_id")
    return row


async def refuse_unknown_owner(unit: UnitOfWork, owner_id: str | None, param: str = "owner_id") -> None:
    """Raise Unprocessable `reference_not_found` if there is no such user."""
    if owner_id is None:
        return
    query = select(UserRow.id).where(UserRow.workspace_id == unit.workspace_id, UserRow.id == owner_id)
    if not ids.is_id(owner_id, USER.prefix) or await unit.session.scalar(query) is None:
        raise store.reference_not_found(param)
