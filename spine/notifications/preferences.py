"""Preferences: opt-outs per contact, channel and category, kept as an append-only history."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints
from sqlalchemy import exists, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Mapped, aliased

from policies.opt_outs import OptOut
from spine.directory.contacts import CONTACT, ContactRow
from spine.kernel import ids, store, timeline
from spine.kernel.events import EventType
from spine.kernel.resource import Body, Resource, ResourceOut, TenantRow
from spine.kernel.routes import CurrentUnit, Paging, declares, new_router
from spine.kernel.store import Page
from spine.kernel.timeline import Change
from spine.kernel.unit_of_work import UnitOfWork
from spine.notifications.provider_kinds import Channel

ContactId = Annotated[str, StringConstraints(min_length=1, max_length=64)]
AnyChannel = Channel | Literal["*"]
AnyCategory = Annotated[
    str, StringConstraints(pattern=r"^(\*|[a-z][a-z0-9_]{0,31})$"), Field(description="A template's category, or `*`.")
]


class PreferenceRow(TenantRow):
    __tablename__ = "preferences"
    contact_id: Mapped[str]
    channel: Mapped[str]
    category: Mapped[str]
    opted_out: Mapped[bool]
    source: Mapped[str]


class PreferencePut(Body):
    contact_id: ContactId
    channel: AnyChannel = "*"
    category: AnyCategory = "*"
    opted_out: bool


class PreferenceOut(ResourceOut):
    object: str = "preference"
    contact_id: str
    channel: str
    category: str
    opted_out: bool
    source: str = Field(description="`api`; `reply`: a STOP or START of the person; `provider`: as a provider tells.")


CHANGED = EventType("preference.changed", PreferenceOut, "A person opted out of something, or in again.")
PREFERENCE = Resource(
    noun="preference",
    row=PreferenceRow,
    create=None,
    update=None,
    out=PreferenceOut,
    scope="notifications",
    events=(CHANGED,),
)

router = new_router("/notifications/v1/preferences", "preferences", PREFERENCE)


@router.put("", openapi_extra=declares("notifications:write", CHANGED), summary="Note what a person does not want")
async def put_preference(body: PreferencePut, unit: CurrentUnit) -> PreferenceOut:
    query = select(ContactRow).where(ContactRow.workspace_id == unit.workspace_id, ContactRow.id == body.contact_id)
    contact = None
    if ids.is_id(body.contact_id, CONTACT.prefix):
        contact = await unit.session.scalar(
            query.with_for_update()
        )  # changes to one contact's preferences are serialised
    if contact is None:
        raise store.reference_not_found("contact_id")
    newest = (
        select(PreferenceRow)
        .where(
            PreferenceRow.workspace_id == unit.workspace_id,
            PreferenceRow.contact_id == body.contact_id,
            PreferenceRow.channel == body.channel,
            PreferenceRow.category == body.category,
        )
        .order_by(PreferenceRow.id.desc())
        .limit(1)
    )
    row: Any = await unit.session.scalar(newest)
    if row is not None and row.opted_out == body.opted_out:
        return PreferenceOut.model_validate(row)
    change = Change(field="opted_out", old=row.opted_out if row is not None else None, new=body.opted_out)
    row = await store.create(unit, PREFERENCE, source="api", **body.model_dump())
    await timeline.append(
        unit,
        body.contact_id,
        "preference.changed",
        changes=[change],
        detail={"channel": body.channel, "category": body.category, "source": "api"},
    )
    out: PreferenceOut = await store.emit_event(unit, PREFERENCE, row, "changed")
    return out


async def opt_outs_of(unit: UnitOfWork, contact_id: str) -> list[OptOut]:
    """Return the preferences of a contact that are in force."""
    query = (
        select(PreferenceRow.channel, PreferenceRow.category, PreferenceRow.opted_out)
        .ext(distinct_on(PreferenceRow.channel, PreferenceRow.category))
        .where(PreferenceRow.workspace_id == unit.workspace_id, PreferenceRow.contact_id == contact_id)
        .order_by(PreferenceRow.channel, PreferenceRow.category, PreferenceRow.id.desc())
    )
    return [OptOut(*row) for row in await unit.session.execute(query)]


@router.get("", openapi_extra=declares("notifications:read"), summary="List the wishes in force, newest first")
async def list_preferences(
    unit: CurrentUnit, paging: Paging, contact_id: ContactId | None = None
) -> Page[PreferenceOut]:
    later = aliased(PreferenceRow)
    replaced = exists().where(
        later.workspace_id == PreferenceRow.workspace_id,
        later.contact_id == PreferenceRow.contact_id,
        later.channel == PreferenceRow.channel,
        later.category == PreferenceRow.category,
        later.id > PreferenceRow.id,
    )
    conditions = [PreferenceRow.contact_id == contact_id] if contact_id is not None else []
    return await store.page(
        unit, PREFERENCE, paging.cursor, paging.limit, *conditions, checked=[~replaced], filters=contact_id or ""
    )
