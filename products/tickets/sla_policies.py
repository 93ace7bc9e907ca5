"""SLA policies: how old a ticket of a priority may grow before its service level is breached (T-10).

A policy of the ticket's topic goes before one for all topics. A policy applies to the cycles that begin after it, and to
tickets whose priority or topic changes; a cycle that runs keeps its threshold.
"""

from typing import Annotated, Final

from pydantic import Field
from sqlalchemy import or_, select
from sqlalchemy.orm import Mapped

from products.tickets.ticket_models import Priority, Topic
from spine.kernel import store
from spine.kernel.crud import crud_router
from spine.kernel.errors import Conflict
from spine.kernel.events import EventType
from spine.kernel.resource import Body, DeletedOut, Metadata, PatchBody, Resource, ResourceOut, TenantRow
from spine.kernel.routes import CurrentUnit, declares
from spine.kernel.unit_of_work import UnitOfWork

MAX_THRESHOLD_S: Final = 366 * 24 * 3600
Threshold = Annotated[
    int, Field(ge=1, le=MAX_THRESHOLD_S, description="Seconds that a ticket may age while it is new or open.")
]


class SlaPolicyRow(TenantRow):
    __tablename__ = "sla_policies"
    priority: Mapped[str]
    topic: Mapped[str | None]
    threshold_s: Mapped[int]

    constraint_errors = {  # read-only
        "sla_policies_scope": lambda: Conflict(
            "a policy for this priority and topic exists", code="sla_policy_exists", param="priority"
        ),
    }


class SlaPolicyCreate(Body):
    priority: Priority
    topic: Annotated[Topic | None, Field(description="Null for every topic.")] = None
    threshold_s: Threshold
    metadata: Metadata = {}


class SlaPolicyUpdate(PatchBody):
    priority: Priority = Priority.NORMAL
    topic: Topic | None = None
    threshold_s: Threshold = 1
    metadata: Metadata = {}


class SlaPolicyOut(ResourceOut):
    object: str = "sla_policy"
    priority: Priority
    topic: str | None
    threshold_s: int


DELETED = EventType("sla_policy.deleted", SlaPolicyOut, "An SLA policy was deleted; running cycles keep its threshold.")
SLA_POLICY = Resource(
    noun="sla_policy",
    row=SlaPolicyRow,
    create=SlaPolicyCreate,
    update=SlaPolicyUpdate,
    out=SlaPolicyOut,
    scope="tickets",
    events=(
        EventType("sla_policy.created", SlaPolicyOut, "An SLA policy was created."),
        EventType("sla_policy.updated", SlaPolicyOut, "An SLA policy was changed; it applies to cycles from now on."),
        DELETED,
    ),
)

router = crud_router(SLA_POLICY, "tickets", "create", "get", "list", "update")


@router.delete("/{id}", openapi_extra=declares("tickets:write", DELETED), summary="Delete an SLA policy")
async def delete_sla_policy(id: str, unit: CurrentUnit) -> DeletedOut:
    row = await store.get(unit, SLA_POLICY, id, lock=True)
    await unit.session.delete(row)
    await store.emit_event(unit, SLA_POLICY, row, "deleted")
    return DeletedOut(id=id, object="sla_policy")


async def find_threshold_s(unit: UnitOfWork, priority: str, topic: str | None) -> int | None:
    """Return the threshold of the most specific policy for a ticket, or None if none applies."""
    query = select(SlaPolicyRow.threshold_s).where(
        SlaPolicyRow.workspace_id == unit.workspace_id,
        SlaPolicyRow.priority == priority,
        or_(SlaPolicyRow.topic.is_(None), SlaPolicyRow.topic == topic),
    )
    found: int | None = await unit.session.scalar(query.order_by(SlaPolicyRow.topic.nulls_last()).limit(1))
    return found
