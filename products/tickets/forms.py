"""Public forms: each is served at its `url` while it is active, and its tickets have owners (T-13, T-14).

A form is active only while there is a default route. Its slug is unique among the forms of all workspaces.
"""

from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from products.tickets.default_route import require_default_route
from products.tickets.form_models import FormCreate, FormOut, FormRow, FormStatus, FormUpdate
from spine.kernel import ids, public_slugs, store
from spine.kernel.brands import Brand, BrandOut
from spine.kernel.errors import IllegalTransition
from spine.kernel.events import EventType
from spine.kernel.keys import Env
from spine.kernel.resource import Resource
from spine.kernel.routes import CurrentUnit, IfMatch, Paging, declares, new_router, version_of
from spine.kernel.store import Page
from spine.kernel.unit_of_work import UnitOfWork

CREATED = EventType("form.created", FormOut, "A public form was created.")
UPDATED = EventType("form.updated", FormOut, "A public form was changed, enabled or disabled.")
FORM = Resource(
    noun="form",
    row=FormRow,
    create=FormCreate,
    update=FormUpdate,
    out=FormOut,
    scope="tickets",
    events=(CREATED, UPDATED),
    states={
        FormStatus.ACTIVE: frozenset({FormStatus.DISABLED}),
        FormStatus.DISABLED: frozenset({FormStatus.ACTIVE}),
    },
)

router = new_router(f"/tickets/v1/{FORM.plural}", FORM.plural, FORM)

_READ: Final = (
    "SELECT id, slug, title, topics, brand, allowed_origins FROM spine.forms "
    "WHERE workspace_id = $1 AND id = $2 AND status = 'active'"
)


@dataclass(frozen=True, slots=True)
class PublicForm:
    """An active form with the workspace that it belongs to."""

    workspace_id: str
    organisation_id: str
    env: Env
    id: str
    slug: str
    title: str
    topics: tuple[str, ...]
    brand: BrandOut
    allowed_origins: tuple[str, ...]


async def find_form(pool: "asyncpg.Pool[asyncpg.Record]", slug: str) -> PublicForm | None:
    """Return the active form with this slug, of whichever workspace; None if there is none."""
    place = await public_slugs.find(pool, "form", slug)
    if place is None:
        return None
    async with pool.acquire() as connection, connection.transaction(readonly=True):
        await connection.execute("SELECT set_config('app.ws', $1, true)", place.workspace_id)
        row = await connection.fetchrow(_READ, place.workspace_id, place.subject_id)
    if row is None:
        return None
    return PublicForm(
        workspace_id=place.workspace_id,
        organisation_id=place.organisation_id,
        env=place.env,
        id=row["id"],
        slug=row["slug"],
        title=row["title"],
        topics=tuple(row["topics"]),
        brand=BrandOut.model_validate(row["brand"]),
        allowed_origins=tuple(row["allowed_origins"]),
    )


def _out(unit: UnitOfWork, row: FormRow) -> FormOut:
    return FormOut.model_validate(row).model_copy(update={"url": f"{unit.platform.http.url}/f/{row.slug}"})


def _emit(unit: UnitOfWork, event: EventType, row: FormRow) -> FormOut:
    out = _out(unit, row)
    unit.emit(event, out, sequence=row.version)
    return out


@router.post("", status_code=201, openapi_extra=declares("tickets:write", CREATED), summary="Create a public form")
async def create_form(body: FormCreate, unit: CurrentUnit) -> FormOut:
    await require_default_route(unit)
    id = ids.mint(FORM.prefix)
    await public_slugs.claim(unit, "form", body.slug, id)
    brand = (body.brand or Brand(name=body.title)).model_dump()
    row = await store.create(
        unit, FORM, id=id, slug=body.slug, title=body.title, topics=body.topics, brand=brand,
        allowed_origins=body.allowed_origins, meta=body.metadata,
    )  # fmt: skip
    return _emit(unit, CREATED, row)


@router.get("", openapi_extra=declares("tickets:read"), summary="List public forms, newest first")
async def list_forms(unit: CurrentUnit, paging: Paging, status: FormStatus | None = None) -> Page[FormOut]:
    checked = [] if status is None else [FormRow.status == status]
    return await store.page(
        unit, FORM, paging.cursor, paging.limit, checked=checked, filters=str(status), out=lambda row: _out(unit, row)
    )


@router.get("/{id}", openapi_extra=declares("tickets:read"), summary="Read a public form")
async def get_form(id: str, unit: CurrentUnit) -> FormOut:
    return _out(unit, await store.get(unit, FORM, id))


@router.patch("/{id}", openapi_extra=declares("tickets:write", UPDATED), summary="Change a public form")
async def update_form(id: str, body: FormUpdate, unit: CurrentUnit, if_match: IfMatch = None) -> FormOut:
    row = await store.get(unit, FORM, id, lock=True)
    values: dict[str, Any] = store.columns(body)
    if "brand" in values:
        values["brand"] = body.brand.model_dump()  # a brand is replaced as a whole
    if await store.change(unit, FORM, row, values, version_of(if_match)):
        return _emit(unit, UPDATED, row)
    return _out(unit, row)


async def _set_status(unit: UnitOfWork, id: str, to: FormStatus) -> FormOut:
    row = await store.get(unit, FORM, id, lock=True)
    if row.status == to:
        raise IllegalTransition(f"it is {to} already", allowed=sorted(FORM.states[row.status]))
    if to == FormStatus.ACTIVE:
        await require_default_route(unit)
    await store.change(unit, FORM, row, {"status": to})
    return _emit(unit, UPDATED, row)


@router.post("/{id}/enable", openapi_extra=declares("tickets:write", UPDATED), summary="Serve a disabled form again")
async def enable_form(id: str, unit: CurrentUnit) -> FormOut:
    return await _set_status(unit, id, FormStatus.ACTIVE)


@router.post("/{id}/disable", openapi_extra=declares("tickets:write", UPDATED), summary="Serve a form no more")
async def disable_form(id: str, unit: CurrentUnit) -> FormOut:
    return await _set_status(unit, id, FormStatus.DISABLED)
