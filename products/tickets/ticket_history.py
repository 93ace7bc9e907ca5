"""What happened to a ticket: each event of a ticket is an entry of its timeline too."""

from collections.abc import Sequence
from typing import Any

from products.tickets.ticket_models import TicketOut
from spine.kernel import timeline
from spine.kernel.events import EventType
from spine.kernel.timeline import Change
from spine.kernel.unit_of_work import UnitOfWork


async def record(
    unit: UnitOfWork,
    event: EventType,
    ticket: TicketOut,
    *,
    changes: Sequence[Change] = (),
    detail: dict[str, Any] | None = None,
) -> None:
    """Emit an event of a ticket, whose data is `ticket`, and append it to the ticket's timeline."""
    unit.emit(event, ticket, sequence=ticket.version)
    await timeline.append(unit, ticket.id, event.name, changes=changes, detail=detail)
