"""The queue: tickets without an owner, the most urgent first, then the oldest. A ticket's position is derived (T-06)."""

from collections.abc import Sequence
from typing import Annotated, Final

from fastapi import Query
from pydantic import BaseModel, Field
from sqlalchemy import CTE, func, select

from products.tickets.ticket_models import TICKET, Priority, TicketOut, TicketRow, TicketStatus, Topic
from spine.kernel.routes import CurrentUnit, declares, new_router
from spine.kernel.unit_of_work import UnitOfWork

MAX_POSITION: Final = 1000
"""Positions are counted so far. Those behind are shown as one more, so that a long queue costs a ticket's reader little."""

router = new_router("/tickets/v1/tickets", TICKET.plural)


class TicketQueue(BaseModel):
    """The front of the queue. It has no cursor, because priorities change: take tickets from it and read it again."""

    data: list[TicketOut]
    has_more: bool = Field(description="True if more tickets wait behind these.")


def _front(unit: UnitOfWork, count: int) -> CTE:
    """Return the ids of the first tickets in the queue with their positions, from an index alone."""
    order = (TicketRow.priority_rank, TicketRow.id)
    waiting = (
        TicketRow.workspace_id == unit.workspace_id,
        TicketRow.owner_id.is_(None),
        TicketRow.status != TicketStatus.RESOLVED,
    )
    numbered = select(TicketRow.id, func.row_number().over(order_by=order).label("position")).where(*waiting)
    return numbered.order_by(*order).limit(count).cte("queue")


async def shown(unit: UnitOfWork, rows: Sequence[TicketRow]) -> list[TicketOut]:
    """Return what callers see of tickets. One query derives the positions of all that wait in the queue."""
    waiting = [row.id for row in rows if row.is_queued]
    found: dict[str, int] = {}
    if waiting:
        queue = _front(unit, MAX_POSITION)
        query = select(queue.c.id, queue.c.position).where(queue.c.id.in_(waiting))
        found = dict((await unit.session.execute(query)).all())
    return [
        TicketOut.model_validate(row).model_copy(
            update={"queue_position": found.get(row.id, MAX_POSITION + 1) if row.is_queued else None}
        )
        for row in rows
    ]


async def shown_one(unit: UnitOfWork, row: TicketRow) -> TicketOut:
    """Return what callers see of a ticket."""
    return (await shown(unit, [row]))[0]


@router.get(
    "/queue",
    openapi_extra=declares("tickets:read", tool="tickets_list_queue"),
    summary="List tickets that wait for an owner, the next one first",
)
async def list_queue(
    unit: CurrentUnit,
    topic: Topic | None = None,
    priority: Priority | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 25,
) -> TicketQueue:
    filters = [
        column == value
        for column, value in ((TicketRow.topic, topic), (TicketRow.priority, priority))
        if value is not None
    ]
    queue = _front(unit, unit.platform.http.max_scan if filters else limit + 1)
    query = (
        select(TicketRow, queue.c.position)
        .join(queue, queue.c.id == TicketRow.id)
        .where(TicketRow.workspace_id == unit.workspace_id, *filters)
    )
    rows = (await unit.session.execute(query.order_by(queue.c.position).limit(limit + 1))).all()
    return TicketQueue(
        data=[
            TicketOut.model_validate(row).model_copy(update={"queue_position": position})
            for row, position in rows[:limit]
        ],
        has_more=len(rows) > limit,
    )
