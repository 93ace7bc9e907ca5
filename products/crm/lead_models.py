"""Leads and their interests: rows, the models that callers see, and their events."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints, model_validator
from sqlalchemy import and_
from sqlalchemy.orm import Mapped, foreign, relationship, remote

from policies.lead_stages import Stage
from products.crm.deals import DealTerms
from products.crm.references import Reference, Text
from spine.directory.addresses import Email, Phone
from spine.kernel import store
from spine.kernel.events import Actor, EventType
from spine.kernel.resource import Body, Metadata, Name, Out, PatchBody, Resource, ResourceOut, TenantRow
from spine.kernel.timeline import Change

MAX_INTERESTS = 200
"""Interests of one lead."""
Door = Literal["agent_finalize", "api", "manual", "form"]
Source = Annotated[
    str,
    StringConstraints(min_length=1, max_length=100, strip_whitespace=True),
    Field(description="Where the lead came from, in your own words: `website`, `referral`."),
]
Note = Annotated[str, StringConstraints(max_length=500, strip_whitespace=True)]


class InterestRow(TenantRow):
    __tablename__ = "interests"
    lead_id: Mapped[str]
    catalog_item_id: Mapped[str]
    note: Mapped[str | None]

    constraint_errors = {  # read-only
        "interests_lead": lambda: store.reference_not_found("lead_id"),
        "interests_item": lambda: store.reference_not_found("catalog_item_id"),
    }


class LeadRow(TenantRow):
    __tablename__ = "leads"
    contact_id: Mapped[str]
    stage: Mapped[str]
    source: Mapped[str]
    door: Mapped[str]
    owner_id: Mapped[str | None]
    lost_reason: Mapped[str | None]
    deal_id: Mapped[str | None]

    constraint_errors = {  # read-only
        "leads_contact": lambda: store.reference_not_found("contact_id"),
        "leads_owner": lambda: store.reference_not_found("owner_id"),
    }
    interests: Mapped[list[InterestRow]] = relationship(
        InterestRow,
        primaryjoin=lambda: and_(
            LeadRow.workspace_id == foreign(remote(InterestRow.workspace_id)),
            LeadRow.id == foreign(remote(InterestRow.lead_id)),
        ),
        order_by=InterestRow.id,
        viewonly=True,
        lazy="selectin",  # one query for all leads of a list
    )


class LeadContact(Body):
    """A person who may or may not be in the address book: the phone, then the email, decides."""

    name: Name
    phone: Phone | None = None
    email: Email | None = None

    @model_validator(mode="after")
    def _has_address(self) -> "LeadContact":
        if self.phone is None and self.email is None:
            raise ValueError("give a phone or an email, so that the contact can be matched")
        return self


class InterestIn(Body):
    catalog_item_id: Reference
    note: Note | None = None


Interests = Annotated[list[InterestIn], Field(max_length=MAX_INTERESTS)]


class LeadCreate(Body):
    contact: LeadContact | None = None
    contact_id: Reference | None = None
    source: Source
    door: Literal["api", "manual", "form"] = "api"
    owner_id: Reference | None = None
    interests: Interests = []
    metadata: Metadata = {}

    @model_validator(mode="after")
    def _one_contact(self) -> "LeadCreate":
        if (self.contact is None) == (self.contact_id is None):
            raise ValueError("give either contact or contact_id")
        return self


class LeadUpdate(PatchBody):
    source: Source = ""
    owner_id: Reference | None = None
    metadata: Metadata = {}


class MoveBody(Body):
    to: Stage = Field(description="A lead becomes `converted` only through `/convert`.")
    lost_reason: Text | None = Field(default=None, description="Required for `lost`, and only then.")


class ConvertBody(Body):
    deal: DealTerms | None = Field(default=None, description="A deal to open for the lead, in the same transaction.")


class LeadInterest(Out):
    """What a lead is interested in."""

    id: str
    catalog_item_id: str
    note: str | None


class LeadOut(ResourceOut):
    object: str = "lead"
    contact_id: str
    stage: Stage
    source: str
    door: Door
    owner_id: str | None
    interests: list[LeadInterest]
    lost_reason: str | None
    deal_id: str | None = Field(description="The deal that it was converted to, if one was opened.")


class InterestOut(ResourceOut):
    object: str = "interest"
    lead_id: str
    catalog_item_id: str
    note: str | None


class LeadUpdated(LeadOut):
    """A lead and what changed on it."""

    changes: list[Change]


class LeadStageChanged(LeadOut):
    """A lead and the move that it made."""

    lead_id: str
    from_: Stage = Field(alias="from")
    to: Stage
    actor: Actor
    revival: bool = Field(description="True if it was lost or dormant before, and is worked on again.")


CREATED = EventType("lead.created", LeadOut, "A lead came in, through any door; `source` and `door` say how.")
UPDATED = EventType(
    "lead.updated", LeadUpdated, "A lead or its interests changed; `changes` says what, from what to what."
)
STAGE_CHANGED = EventType(
    "lead.stage_changed", LeadStageChanged, "A lead moved to another stage; `revival` if it was lost or dormant before."
)
LEAD = Resource(
    noun="lead",
    row=LeadRow,
    create=LeadCreate,
    update=LeadUpdate,
    out=LeadOut,
    scope="crm",
    events=(CREATED, UPDATED, STAGE_CHANGED),
)
INTEREST = Resource(noun="interest", row=InterestRow, create=None, update=None, out=InterestOut, scope="crm")


def stage_changed(out: LeadOut, previous: Stage, actor: Actor, *, revival: bool) -> BaseModel:
    """Return the data of `lead.stage_changed`."""
    fields: dict[str, Any] = out.model_dump()
    return LeadStageChanged(
        **fields, **{"lead_id": out.id, "from": previous, "to": out.stage, "actor": actor, "revival": revival}
    )
