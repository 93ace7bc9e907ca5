"""Contacts: the address book of all products (ruling X22), under /crm/v1. Change events list each changed field (C-11)."""

from typing import Annotated, Any

from pydantic import Field, JsonValue, StringConstraints
from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Mapped, mapped_column

from spine.directory.addresses import Email, Phone
from spine.directory.contact_suggestions import CHANGE_SUGGESTED
from spine.directory.users import USER, UserRow
from spine.kernel import ids, store, timeline
from spine.kernel.crud import crud_router
from spine.kernel.errors import Conflict, Unprocessable
from spine.kernel.events import EventType
from spine.kernel.resource import Body, Metadata, Name, PatchBody, Resource, ResourceOut, TenantRow
from spine.kernel.routes import CurrentUnit, IfMatch, Paging, declares, version_of
from spine.kernel.store import Page
from spine.kernel.timeline import Change, TimelineEntry
from spine.kernel.unit_of_work import UnitOfWork

Fields = Annotated[
    dict[Annotated[str, StringConstraints(min_length=1, max_length=64)], JsonValue],
    Field(max_length=200, description="Whatever else you know of the person."),
]
_TRACKED_FIELDS = ("name", "phone_e164", "email", "owner_id", "fields", "metadata")


class ContactRow(TenantRow):
    __tablename__ = "contacts"
    name: Mapped[str]
    phone_e164: Mapped[str | None]
    email: Mapped[str | None]
    owner_id: Mapped[str | None]
    fields: Mapped[dict[str, Any]] = mapped_column(default=dict)

    constraint_errors = {  # read-only
        "contacts_phone": lambda: _exists(None, "phone"),
        "contacts_email": lambda: _exists(None, "email"),
        "contacts_workspace_id_owner_id_fkey": lambda: store.reference_not_found("owner_id"),
    }


class ContactCreate(Body):
    name: Name
    phone: Phone | None = None
    email: Email | None = None
    owner_id: Annotated[str, StringConstraints(max_length=64)] | None = None
    fields: Fields = {}
    metadata: Metadata = {}


class ContactUpdate(PatchBody):
    name: Name = ""
    phone: Phone | None = None
    email: Email | None = None
    owner_id: Annotated[str, StringConstraints(max_length=64)] | None = None
    fields: Fields = {}
    metadata: Metadata = {}


class ContactOut(ResourceOut):
    object: str = "contact"
    name: str
    phone_e164: str | None
    email: str | None
    owner_id: str | None
    fields: dict[str, Any]


class ContactUpdated(ContactOut):
    """A contact and what changed on it."""

    changes: list[Change]


CREATED = EventType("contact.created", ContactOut, "A contact was added to the address book.")
UPDATED = EventType(
    "contact.updated", ContactUpdated, "A contact changed; `changes` says which fields, from what to what."
)
CONTACT = Resource(
    noun="contact",
    row=ContactRow,
    create=ContactCreate,
    update=ContactUpdate,
    out=ContactOut,
    scope="crm",
    events=(CREATED, UPDATED, CHANGE_SUGGESTED),
)

router = crud_router(CONTACT, "crm", "get", tools={"get": "crm_get_contact"})


def _exists(id: str | None, param: str) -> Conflict:
    suffix = f": {id}" if id else ""
    return Conflict(f"a contact with this {param} exists{suffix}", code="contact_exists", param=param, existing_id=id)


def _columns(body: Body) -> dict[str, Any]:
    values = store.columns(body)
    if "phone" in values:
        values["phone_e164"] = values.pop("phone")
    return values


async def _refuse_duplicate(unit: UnitOfWork, values: dict[str, Any], own_id: str = "") -> None:
    """Raise Conflict `contact_exists`, with the id of the other contact, if one has this phone or email."""
    matches: list[ColumnElement[bool]] = [
        column == values[column.key]
        for column in (ContactRow.phone_e164, ContactRow.email)
        if values.get(column.key) is not None
    ]
    if not matches:
        return
    query = select(ContactRow.id, ContactRow.phone_e164).where(
        ContactRow.workspace_id == unit.workspace_id, ContactRow.id != own_id, or_(*matches)
    )
    found = (await unit.session.execute(query.order_by(ContactRow.id).limit(1))).first()
    if found is not None:
        by_phone = values.get("phone_e164") is not None and found.phone_e164 == values["phone_e164"]
        raise _exists(found.id, "phone" if by_phone else "email")


async def _refuse_unknown_owner(unit: UnitOfWork, values: dict[str, Any]) -> None:
    owner_id = values.get("owner_id")
    if owner_id is None:
        return
    query = select(UserRow.id).where(UserRow.workspace_id == unit.workspace_id, UserRow.id == owner_id)
    if not ids.is_id(owner_id, USER.prefix) or await unit.session.scalar(query) is None:
        raise store.reference_not_found("owner_id")


async def _write_unique(unit: UnitOfWork, values: dict[str, Any], write: Any, own_id: str = "") -> Any:
    """Run a write that may violate uniqueness. Raises Conflict with the id of the existing contact, also after a race."""
    await _refuse_duplicate(unit, values, own_id)
    try:
        async with unit.session.begin_nested():
            return await write()
    except Conflict as conflict:
        if conflict.code == "contact_exists":
            await _refuse_duplicate(unit, values, own_id)
        raise


async def create(unit: UnitOfWork, values: dict[str, Any]) -> ContactOut:
    """Create a contact with its event and its first timeline entry. Raises Conflict, Unprocessable."""
    await _refuse_unknown_owner(unit, values)
    row = await _write_unique(unit, values, lambda: store.create(unit, CONTACT, **values))
    await timeline.append(unit, row.id, "contact.created")
    out: ContactOut = await store.emit_event(unit, CONTACT, row, "created")
    return out


async def match(
    unit: UnitOfWork, *, name: str | None, phone: str | None, email: str | None, new_id: str | None = None
) -> tuple[ContactRow, bool]:
    """Return the contact with this normalised phone or e-mail address, and False; else create one, and True (C-01, C-03).

    A contact that is created has the id `new_id`, if one is given. The phone is looked up first. Of any number of concurrent
    calls exactly one creates the contact. Fields of a contact that exists stay as they are. Raises Unprocessable if there is
    neither a phone nor an e-mail address.
    """
    if phone is None and email is None:
        raise Unprocessable("give a phone or an email, so that the contact can be matched", param="contact")
    found = await _find(unit, phone, email)
    if found is not None:
        return found, False
    values = {"name": name or phone or email, "phone_e164": phone, "email": email}
    try:
        async with unit.session.begin_nested():
            row = await store.create(unit, CONTACT, id=new_id, **values)
    except Conflict:
        found = await _find(unit, phone, email)
        if found is None:
            raise
        return found, False
    await timeline.append(unit, row.id, "contact.created")
    await store.emit_event(unit, CONTACT, row, "created")
    return row, True


async def _find(unit: UnitOfWork, phone: str | None, email: str | None) -> ContactRow | None:
    for column, value in ((ContactRow.phone_e164, phone), (ContactRow.email, email)):
        if value is not None:
            query = select(ContactRow).where(ContactRow.workspace_id == unit.workspace_id, column == value)
            found: ContactRow | None = await unit.session.scalar(query)
            if found is not None:
                return found
    return None


@router.post(
    "",
    status_code=201,
    openapi_extra=declares("crm:write", CREATED, tool="crm_create_contact"),
    summary="Create a contact",
)
async def create_contact(body: ContactCreate, unit: CurrentUnit) -> ContactOut:
    return await create(unit, _columns(body))


@router.get("", openapi_extra=declares("crm:read", tool="crm_search_contacts"), summary="List contacts, newest first")
async def list_contacts(
    unit: CurrentUnit, paging: Paging, phone: Phone | None = None, email: Email | None = None
) -> Page[ContactOut]:
    conditions = [
        column == value
        for column, value in ((ContactRow.phone_e164, phone), (ContactRow.email, email))
        if value is not None
    ]
    return await store.page(unit, CONTACT, paging.cursor, paging.limit, *conditions, filters=f"{phone} {email}")


@router.patch(
    "/{id}", openapi_extra=declares("crm:write", UPDATED, tool="crm_update_contact"), summary="Change a contact"
)
async def update_contact(id: str, body: ContactUpdate, unit: CurrentUnit, if_match: IfMatch = None) -> ContactOut:
    row = await store.get(unit, CONTACT, id, lock=True)
    values = _columns(body)
    await _refuse_unknown_owner(unit, values)
    before = ContactOut.model_validate(row).model_dump(mode="json")
    expected = version_of(if_match)
    changed = await _write_unique(unit, values, lambda: store.change(unit, CONTACT, row, values, expected), row.id)
    out = ContactOut.model_validate(row)
    if changed:
        after = out.model_dump(mode="json")
        changes = [
            Change(field=name, old=before[name], new=after[name])
            for name in _TRACKED_FIELDS
            if store.differs(before[name], after[name])
        ]
        unit.emit(UPDATED, ContactUpdated(**out.model_dump(), changes=changes), sequence=row.version)
        await timeline.append(unit, row.id, "contact.updated", changes=changes)
    return out


@router.get("/{id}/timeline", openapi_extra=declares("crm:read"), summary="A contact's timeline, oldest first")
async def get_contact_timeline(id: str, unit: CurrentUnit, paging: Paging) -> Page[TimelineEntry]:
    await store.get(unit, CONTACT, id)
    return await timeline.page(unit, id, paging)
