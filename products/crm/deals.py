"""Deals: money that a contact may bring. A deal moves through stages of the caller's own while open; won and lost are final."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator
from sqlalchemy import BigInteger
from sqlalchemy.orm import Mapped, mapped_column

from products.crm.history import changes_between, tell
from products.crm.references import Reference, Text, known_contact, refuse_unknown_owner
from spine.kernel import store
from spine.kernel.events import EventType
from spine.kernel.money import AmountMinor, Currency
from spine.kernel.resource import Body, Metadata, Name, PatchBody, Resource, ResourceOut, TenantRow
from spine.kernel.timeline import Change
from spine.kernel.unit_of_work import UnitOfWork

Stage = Annotated[
    str,
    StringConstraints(min_length=1, max_length=64, strip_whitespace=True),
    Field(description="A stage of your own pipeline, such as `proposal`."),
]
DealStatus = Literal["open", "won", "lost"]
TRACKED_FIELDS = ("name", "stage", "value_minor", "currency", "owner_id", "metadata")


class DealRow(TenantRow):
    __tablename__ = "deals"
    lead_id: Mapped[str | None]
    contact_id: Mapped[str]
    name: Mapped[str]
    stage: Mapped[str]
    value_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str]
    owner_id: Mapped[str | None]
    status: Mapped[str] = mapped_column(default="open")
    lost_reason: Mapped[str | None]
    closed_at: Mapped[datetime | None]

    constraint_errors = {  # read-only
        "deals_lead": lambda: store.reference_not_found("lead_id"),
        "deals_contact": lambda: store.reference_not_found("contact_id"),
        "deals_owner": lambda: store.reference_not_found("owner_id"),
    }


class DealTerms(Body):
    """What a deal is about; of a deal that a lead is converted to, all that is given."""

    name: Name | None = Field(default=None, description="Without it, the contact's name.")
    stage: Stage = "new"
    value_minor: AmountMinor
    currency: Currency
    owner_id: Reference | None = Field(default=None, description="Without it, the owner of the lead.")
    metadata: Metadata = {}


class DealCreate(DealTerms):
    lead_id: Reference | None = None
    contact_id: Reference | None = Field(default=None, description="Without it, the contact of the lead.")

    @model_validator(mode="after")
    def _has_contact(self) -> "DealCreate":
        if self.lead_id is None and self.contact_id is None:
            raise ValueError("give a contact_id, or the lead_id of one of the contact's leads")
        return self


class DealUpdate(PatchBody):
    name: Name = ""
    stage: Stage = ""
    value_minor: AmountMinor = 0
    currency: Currency = ""
    owner_id: Reference | None = None
    metadata: Metadata = {}


class WinBody(Body):
    """Nothing more is needed to win a deal."""


class LoseBody(Body):
    lost_reason: Text


class DealOut(ResourceOut):
    object: str = "deal"
    lead_id: str | None
    contact_id: str
    name: str
    stage: str
    value_minor: int
    currency: str
    owner_id: str | None
    status: DealStatus
    lost_reason: str | None
    closed_at: datetime | None = Field(description="When it was won or lost.")


class DealUpdated(DealOut):
    """A deal and what changed on it."""

    changes: list[Change]


CREATED = EventType("deal.created", DealOut, "A deal was opened.")
UPDATED = EventType(
    "deal.updated", DealUpdated, "An open deal changed; `changes` says which fields, from what to what."
)
WON = EventType("deal.won", DealOut, "A deal was won, for this value.")
LOST = EventType("deal.lost", DealOut, "A deal was lost; `lost_reason` says why.")
DEAL = Resource(
    noun="deal",
    row=DealRow,
    create=DealCreate,
    update=DealUpdate,
    out=DealOut,
    scope="crm",
    events=(CREATED, UPDATED, WON, LOST),
    states={"open": frozenset({"won", "lost"}), "won": frozenset(), "lost": frozenset()},
)


async def open_deal(
    unit: UnitOfWork, terms: DealTerms, *, contact_id: str, lead_id: str | None, owner_id: str | None
) -> DealOut:
    """Open a deal with its event and its timeline entries. Raises Unprocessable `reference_not_found`."""
    contact = await known_contact(unit, contact_id)
    await refuse_unknown_owner(unit, terms.owner_id)
    values = store.columns(terms)
    values |= {"name": terms.name or contact.name, "stage": terms.stage, "owner_id": terms.owner_id or owner_id}
    values |= {"contact_id": contact_id, "lead_id": lead_id}
    row = await store.create(unit, DEAL, **values)
    out: DealOut = await store.emit_event(unit, DEAL, row, "created")
    await tell_of_deal(unit, "deal.created", row)
    return out


async def tell_of_deal(unit: UnitOfWork, kind: str, row: DealRow, changes: list[Change] | None = None) -> None:
    """Append an entry to the timelines of the deal and its contact."""
    detail: dict[str, Any] = {"deal_id": row.id, "stage": row.stage, "status": row.status}
    if row.lost_reason is not None:
        detail["lost_reason"] = row.lost_reason
    await tell(unit, kind, row.id, row.contact_id, changes=changes or (), detail=detail)


async def update_terms(unit: UnitOfWork, row: DealRow, body: DealUpdate, expected_version: int | None) -> DealOut:
    """Change a locked deal, and emit what changed. Raises Conflict `version_conflict`, Unprocessable."""
    values = store.columns(body)
    await refuse_unknown_owner(unit, values.get("owner_id"))
    before = DealOut.model_validate(row).model_dump(mode="json")
    changed = await store.change(unit, DEAL, row, values, expected_version)
    out = DealOut.model_validate(row)
    if changed:
        changes = changes_between(before, out.model_dump(mode="json"), TRACKED_FIELDS)
        unit.emit(UPDATED, DealUpdated(**out.model_dump(), changes=changes), sequence=row.version)
        await tell_of_deal(unit, "deal.updated", row, changes)
    return out
