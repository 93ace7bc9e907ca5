"""Routing rules: which user gets a new ticket of a topic, or which users in turn; the rule without a topic is the default route."""

from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field
from sqlalchemy import BigInteger, Text, or_, select, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from products.tickets.default_route import refuse_while_a_form_is_active
from products.tickets.ticket_models import Reference, Topic
from spine.directory.users import UserRow
from spine.kernel import store
from spine.kernel.crud import crud_router
from spine.kernel.errors import Conflict, Unprocessable
from spine.kernel.events import EventType
from spine.kernel.resource import Body, DeletedOut, Metadata, PatchBody, Resource, ResourceOut, TenantRow
from spine.kernel.routes import CurrentUnit, IfMatch, declares, version_of
from spine.kernel.unit_of_work import UnitOfWork

MAX_OWNERS: Final = 100


def _distinct(owners: list[str]) -> list[str]:
    if len(set(owners)) < len(owners):
        raise ValueError("name each user once")
    return owners


OwnerId = Annotated[Reference | None, Field(description="The user who gets the tickets.")]
Owners = Annotated[
    list[Reference],
    Field(max_length=MAX_OWNERS, description="Users who get the tickets in turn, instead of one `owner_id`."),
    AfterValidator(_distinct),
]


class RoutingRuleRow(TenantRow):
    __tablename__ = "routing_rules"
    topic: Mapped[str | None]
    owner_id: Mapped[str | None]
    owners: Mapped[list[str]] = mapped_column(ARRAY(Text), default=list)
    turn: Mapped[int] = mapped_column(BigInteger, default=0)

    constraint_errors = {  # read-only
        "routing_rules_topic": lambda: Conflict(
            "a rule for this topic exists", code="routing_rule_exists", param="topic"
        ),
        "routing_rules_owner": lambda: store.reference_not_found("owner_id"),
    }


class RoutingRuleCreate(Body):
    topic: Annotated[Topic | None, Field(description="Null for the default route.")] = None
    owner_id: OwnerId = None
    owners: Owners = []
    metadata: Metadata = {}


class RoutingRuleUpdate(PatchBody):
    topic: Annotated[Topic | None, Field(description="Null for the default route.")] = None
    owner_id: OwnerId = None
    owners: Owners = []
    metadata: Metadata = {}


class RoutingRuleOut(ResourceOut):
    object: str = "routing_rule"
    topic: str | None
    owner_id: str | None
    owners: list[str]


CREATED = EventType("routing_rule.created", RoutingRuleOut, "A routing rule was created.")
UPDATED = EventType("routing_rule.updated", RoutingRuleOut, "A routing rule was changed.")
DELETED = EventType("routing_rule.deleted", RoutingRuleOut, "A routing rule was deleted.")
ROUTING_RULE = Resource(
    noun="routing_rule",
    row=RoutingRuleRow,
    create=RoutingRuleCreate,
    update=RoutingRuleUpdate,
    out=RoutingRuleOut,
    scope="tickets",
    events=(CREATED, UPDATED, DELETED),
)

router = crud_router(ROUTING_RULE, "tickets", "get", "list")


async def _owner_columns(unit: UnitOfWork, values: dict[str, Any]) -> dict[str, Any]:
    """Return the values with either an owner or several. Raises Unprocessable for both, neither, or an unknown user."""
    if not {"owner_id", "owners"} & values.keys():
        return values
    owner_id, owners = values.get("owner_id"), values.get("owners") or []
    if (owner_id is None) == (not owners):
        raise Unprocessable("give either owner_id or owners", param="owner_id")
    found = select(UserRow.id).where(UserRow.workspace_id == unit.workspace_id, UserRow.id.in_(owners))
    if owners and set(owners) - set(await unit.session.scalars(found)):
        raise store.reference_not_found("owners")
    return {**values, "owner_id": owner_id, "owners": owners}


@router.post("", status_code=201, openapi_extra=declares("tickets:write", CREATED), summary="Create a routing rule")
async def create_routing_rule(body: RoutingRuleCreate, unit: CurrentUnit) -> RoutingRuleOut:
    values = await _owner_columns(unit, {"owner_id": None, **store.columns(body)})
    row = await store.create(unit, ROUTING_RULE, **values)
    out: RoutingRuleOut = await store.emit_event(unit, ROUTING_RULE, row, "created")
    return out


@router.patch("/{id}", openapi_extra=declares("tickets:write", UPDATED), summary="Change a routing rule")
async def update_routing_rule(
    id: str, body: RoutingRuleUpdate, unit: CurrentUnit, if_match: IfMatch = None
) -> RoutingRuleOut:
    row = await store.get(unit, ROUTING_RULE, id, lock=True)
    values = await _owner_columns(unit, store.columns(body))
    if row.topic is None and values.get("topic") is not None:
        await refuse_while_a_form_is_active(unit)
    if await store.change(unit, ROUTING_RULE, row, values, version_of(if_match)):
        out: RoutingRuleOut = await store.emit_event(unit, ROUTING_RULE, row, "updated")
        return out
    return RoutingRuleOut.model_validate(row)


@router.delete("/{id}", openapi_extra=declares("tickets:write", DELETED), summary="Delete a routing rule")
async def delete_routing_rule(id: str, unit: CurrentUnit) -> DeletedOut:
    row = await store.get(unit, ROUTING_RULE, id, lock=True)
    if row.topic is None:
        await refuse_while_a_form_is_active(unit)
    await unit.session.delete(row)
    await store.emit_event(unit, ROUTING_RULE, row, "deleted")
    return DeletedOut(id=id, object="routing_rule")


async def choose_owner(unit: UnitOfWork, topic: str | None) -> str | None:
    """Return the user who gets a new ticket of this topic, by the topic's rule or the default route; None without either.

    Users of one rule take turns. The row lock of the turn makes concurrent tickets go to different users, and a ticket whose
    transaction fails gives its turn back.
    """
    query = select(RoutingRuleRow.id, RoutingRuleRow.owner_id).where(
        RoutingRuleRow.workspace_id == unit.workspace_id,
        or_(RoutingRuleRow.topic.is_(None), RoutingRuleRow.topic == topic),
    )
    rule = (await unit.session.execute(query.order_by(RoutingRuleRow.topic.nulls_last()).limit(1))).first()
    if rule is None or rule.owner_id is not None:
        return None if rule is None else rule.owner_id
    take_turn = (
        update(RoutingRuleRow)
        .where(RoutingRuleRow.workspace_id == unit.workspace_id, RoutingRuleRow.id == rule.id)
        .values(turn=RoutingRuleRow.turn + 1)
        .returning(RoutingRuleRow.turn, RoutingRuleRow.owners, RoutingRuleRow.owner_id)
        .execution_options(synchronize_session=False)
    )
    taken = (await unit.session.execute(take_turn)).first()
    if taken is None:
        return await choose_owner(unit, topic)  # the rule was deleted meanwhile
    owners: list[str] = taken.owners
    only_owner: str | None = taken.owner_id
    return only_owner or owners[(taken.turn - 1) % len(owners)]
