"""Routing rules: which user gets a new ticket of a topic; the rule without a topic is the default route."""

from typing import Annotated

from pydantic import Field, StringConstraints
from sqlalchemy.orm import Mapped

from spine.kernel import store
from spine.kernel.crud import crud_router
from spine.kernel.errors import Conflict
from spine.kernel.events import EventType
from spine.kernel.resource import Body, Metadata, PatchBody, Resource, ResourceOut, TenantRow

Topic = Annotated[
    str, StringConstraints(min_length=1, max_length=64, strip_whitespace=True), Field(description="A ticket's topic.")
]
OwnerId = Annotated[str, StringConstraints(max_length=64), Field(description="The user who gets the ticket.")]


class RoutingRuleRow(TenantRow):
    __tablename__ = "routing_rules"
    topic: Mapped[str | None]
    owner_id: Mapped[str]

    constraint_errors = {  # read-only
        "routing_rules_topic": lambda: Conflict(
            "a rule for this topic exists", code="routing_rule_exists", param="topic"
        ),
        "routing_rules_owner": lambda: store.reference_not_found("owner_id"),
    }


class RoutingRuleCreate(Body):
    topic: Topic | None = Field(default=None, description="Null for the default route.")
    owner_id: OwnerId
    metadata: Metadata = {}


class RoutingRuleUpdate(PatchBody):
    topic: Topic | None = None
    owner_id: OwnerId = ""
    metadata: Metadata = {}


class RoutingRuleOut(ResourceOut):
    object: str = "routing_rule"
    topic: str | None
    owner_id: str


CREATED = EventType("routing_rule.created", RoutingRuleOut, "A routing rule was created.")
UPDATED = EventType("routing_rule.updated", RoutingRuleOut, "A routing rule was changed.")
ROUTING_RULE = Resource(
    noun="routing_rule",
    row=RoutingRuleRow,
    create=RoutingRuleCreate,
    update=RoutingRuleUpdate,
    out=RoutingRuleOut,
    scope="tickets",
    events=(CREATED, UPDATED),
)

router = crud_router(ROUTING_RULE, "tickets", "create", "get", "list", "update")
