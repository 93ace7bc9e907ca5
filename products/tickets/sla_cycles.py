"""The service level of tickets: each cycle has a clock and, if a policy applies, a job that breaches it once (T-10, X12).

    created or reopened ─► the clock runs ─► pending: it stands ─► open: it runs on ─► resolved: it stops
                                 └─ at the threshold the job is due ─► ticket.sla_breached, once a cycle

The clock's arithmetic is in `policies.sla`. Whoever changes it schedules, moves or cancels the job in the same transaction.
"""

from datetime import datetime
from typing import Any, Final

from policies.sla import SlaClock, due_at, resumed, started, stopped
from products.tickets.queue import shown_one
from products.tickets.sla_policies import find_threshold_s
from products.tickets.ticket_history import record
from products.tickets.ticket_models import SLA_BREACHED, TICKET, TicketRow, TicketStatus
from spine.kernel import ids, jobs, store
from spine.kernel.jobs import Job
from spine.kernel.unit_of_work import UnitOfWork

BREACH: Final = "tickets.breach_sla"
_AGES: Final = frozenset({TicketStatus.NEW, TicketStatus.OPEN})
"""The statuses in which the clock runs."""


async def lock_ticket(unit: UnitOfWork, id: str) -> TicketRow:
    """Return a ticket, locked for a change that may move its job. Raises NotFound."""
    if ids.is_id(id, TICKET.prefix):
        await jobs.lock(unit, BREACH, id)
    row: TicketRow = await store.get(unit, TICKET, id, lock=True)
    return row


async def new_cycle(unit: UnitOfWork, priority: str, topic: str | None, now: datetime) -> dict[str, Any]:
    """Return the columns of a ticket whose cycle begins now, under the policy that applies by now."""
    threshold_s = await find_threshold_s(unit, priority, topic)
    return {**_columns(started(now)), "sla_threshold_s": threshold_s, "sla_breached_at": None}


def clock_columns(row: TicketRow, to: str, now: datetime) -> dict[str, Any]:
    """Return the columns of the clock for a ticket that goes to another status."""
    return _columns(resumed(row.sla_clock, now) if to in _AGES else stopped(row.sla_clock, now))


def _columns(clock: SlaClock) -> dict[str, Any]:
    return {"sla_elapsed": clock.elapsed, "sla_running_since": clock.running_since}


async def schedule_breach(unit: UnitOfWork, row: TicketRow) -> None:
    """Schedule, move or cancel the ticket's job, as its clock and its threshold say."""
    due = due_at(row.sla_clock, row.sla_threshold_s)
    if due is None or row.sla_breached_at is not None:
        await jobs.cancel(unit, BREACH, row.id)
    else:
        await jobs.schedule(unit, BREACH, row.id, due)


async def breach(unit: UnitOfWork, job: Job) -> None:
    """Breach the service level of a ticket whose job is due. The job is moved with the clock, so it is due in truth."""
    row: TicketRow = await store.get(unit, TICKET, job.subject_id, lock=True)
    if row.sla_running_since is None or row.sla_breached_at is not None:
        return
    await store.change(unit, TICKET, row, {"sla_breached_at": await unit.now()})
    await record(unit, SLA_BREACHED, await shown_one(unit, row), detail={"threshold_s": row.sla_threshold_s})
