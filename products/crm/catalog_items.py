"""Catalog items: what leads can be interested in."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, StringConstraints
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from products.crm.list_filters import filtered_page
from spine.kernel import ids, store
from spine.kernel.crud import crud_router
from spine.kernel.errors import Conflict
from spine.kernel.events import EventType
from spine.kernel.money import AmountMinor, Currency
from spine.kernel.resource import Body, Metadata, Name, Out, Resource, ResourceOut, TenantRow
from spine.kernel.routes import CurrentUnit, Paging, declares
from spine.kernel.store import Page
from spine.kernel.unit_of_work import UnitOfWork

Sku = Annotated[
    str,
    StringConstraints(min_length=1, max_length=64, strip_whitespace=True),
    Field(description="Your own code of the item, unique in the workspace."),
]


class CatalogItemRow(TenantRow):
    __tablename__ = "catalog_items"
    name: Mapped[str]
    sku: Mapped[str | None]
    price: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))

    constraint_errors = {  # read-only
        "catalog_items_sku": lambda: _exists(None),
    }


class Price(Body):
    """What one of it costs."""

    amount_minor: AmountMinor
    currency: Currency


class CatalogItemCreate(Body):
    name: Name
    sku: Sku | None = None
    price: Price | None = None
    metadata: Metadata = {}


class PriceOut(Out):
    amount_minor: int
    currency: str


class CatalogItemOut(ResourceOut):
    object: str = "catalog_item"
    name: str
    sku: str | None
    price: PriceOut | None


CREATED = EventType("catalog_item.created", CatalogItemOut, "An item was added to the catalog.")
CATALOG_ITEM = Resource(
    noun="catalog_item",
    row=CatalogItemRow,
    create=CatalogItemCreate,
    update=None,
    out=CatalogItemOut,
    scope="crm",
    events=(CREATED,),
)

router = crud_router(CATALOG_ITEM, "crm", "get")


def _exists(id: str | None) -> Conflict:
    suffix = f": {id}" if id else ""
    return Conflict(f"an item with this sku exists{suffix}", code="catalog_item_exists", param="sku", existing_id=id)


async def _refuse_duplicate(unit: UnitOfWork, sku: str | None) -> None:
    if sku is None:
        return
    query = select(CatalogItemRow.id).where(CatalogItemRow.workspace_id == unit.workspace_id, CatalogItemRow.sku == sku)
    id = await unit.session.scalar(query)
    if id is not None:
        raise _exists(id)


@router.post("", status_code=201, openapi_extra=declares("crm:write", CREATED), summary="Add an item to the catalog")
async def create_catalog_item(body: CatalogItemCreate, unit: CurrentUnit) -> CatalogItemOut:
    await _refuse_duplicate(unit, body.sku)
    try:
        async with unit.session.begin_nested():
            row = await store.create(unit, CATALOG_ITEM, **store.columns(body))
    except Conflict:
        await _refuse_duplicate(unit, body.sku)  # the same answer after a race
        raise
    out: CatalogItemOut = await store.emit_event(unit, CATALOG_ITEM, row, "created")
    return out


@router.get("", openapi_extra=declares("crm:read"), summary="List catalog items, newest first")
async def list_catalog_items(unit: CurrentUnit, paging: Paging, sku: Sku | None = None) -> Page[CatalogItemOut]:
    return await filtered_page(unit, CATALOG_ITEM, paging, (CatalogItemRow.sku, sku))


async def refuse_unknown_items(unit: UnitOfWork, item_ids: Sequence[str], param: str) -> None:
    """Raise Unprocessable `reference_not_found` for the first id that names no item. `{}` in `param` stands for its position."""
    wanted = {id for id in item_ids if ids.is_id(id, CATALOG_ITEM.prefix)}
    query = select(CatalogItemRow.id).where(
        CatalogItemRow.workspace_id == unit.workspace_id, CatalogItemRow.id.in_(wanted)
    )
    found = set((await unit.session.scalars(query)).all()) if wanted else set()
    for n, id in enumerate(item_ids):
        if id not in found:
            raise store.reference_not_found(param.format(n))
