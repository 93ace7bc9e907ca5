"""Invoices: drafts that follow reached milestones. Billing knows Works by the event `milestone.reached` alone (W-07)."""

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import StringConstraints
from sqlalchemy import BigInteger, ColumnElement, text
from sqlalchemy.orm import Mapped, mapped_column

from spine.kernel import ids, jobs, store
from spine.kernel.crud import crud_router
from spine.kernel.events import EventType
from spine.kernel.jobs import Job
from spine.kernel.resource import Body, Resource, ResourceOut, TenantRow
from spine.kernel.routes import CurrentUnit, Paging, declares
from spine.kernel.store import Page
from spine.kernel.unit_of_work import UnitOfWork

KIND: Final = "billing.draft_invoice"
"""The job that follows `milestone.reached`."""
InvoiceStatus = Literal["draft", "void"]
Reference = Annotated[str, StringConstraints(min_length=1, max_length=64)]
# Whichever of the two unique constraints holds an earlier draft: that one stays.
_DRAFT: Final = text(
    "INSERT INTO spine.invoices (workspace_id, id, project_id, milestone_id, source_event_id, amount_minor, currency, description) "
    "VALUES (:ws, :id, :project_id, :milestone_id, :event_id, :amount_minor, :currency, :description) "
    "ON CONFLICT DO NOTHING RETURNING id"
)


class InvoiceRow(TenantRow):
    __tablename__ = "invoices"
    project_id: Mapped[str]
    milestone_id: Mapped[str]
    source_event_id: Mapped[str]
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str]
    description: Mapped[str | None]
    status: Mapped[str] = mapped_column(default="draft")
    void_reason: Mapped[str | None]
    voided_at: Mapped[datetime | None]


class VoidBody(Body):
    reason: Annotated[str, StringConstraints(min_length=1, max_length=2000, strip_whitespace=True)] | None = None


class InvoiceOut(ResourceOut):
    object: str = "invoice"
    project_id: str
    milestone_id: str
    source_event_id: str
    amount_minor: int
    currency: str
    description: str | None
    status: InvoiceStatus
    void_reason: str | None
    voided_at: datetime | None


DRAFTED = EventType("invoice.drafted", InvoiceOut, "An invoice was drafted for a milestone that was reached.")
VOIDED = EventType("invoice.voided", InvoiceOut, "A draft of an invoice was voided.")
INVOICE = Resource(
    noun="invoice",
    row=InvoiceRow,
    create=None,
    update=None,
    out=InvoiceOut,
    scope="billing",
    events=(DRAFTED, VOIDED),
    states={"draft": frozenset({"void"}), "void": frozenset()},
)

router = crud_router(INVOICE, "billing", "get")


async def draft_invoice(unit: UnitOfWork, job: Job) -> None:
    """Draft the invoice of a milestone that was reached, if it has billing: one for each event, and one for each milestone."""
    event = await jobs.read_event(unit, job)
    billing: dict[str, Any] | None = event["data"]["billing"] if event is not None else None
    if event is None or billing is None:
        return
    drafted = await unit.session.scalar(
        _DRAFT,
        {
            "ws": unit.workspace_id,
            "id": ids.mint(INVOICE.prefix),
            "project_id": event["data"]["project_id"],
            "milestone_id": event["data"]["id"],
            "event_id": event["id"],
            **{name: billing[name] for name in ("amount_minor", "currency", "description")},
        },
    )
    if drafted is not None:
        await store.emit_event(unit, INVOICE, await store.get(unit, INVOICE, drafted), "drafted")


@router.get("", openapi_extra=declares("billing:read"), summary="List invoices, newest first")
async def list_invoices(
    unit: CurrentUnit,
    paging: Paging,
    milestone_id: Reference | None = None,
    project_id: Reference | None = None,
    status: InvoiceStatus | None = None,
) -> Page[InvoiceOut]:
    filters = [
        (InvoiceRow.milestone_id, milestone_id),
        (InvoiceRow.project_id, project_id),
        (InvoiceRow.status, status),
    ]
    conditions: list[ColumnElement[bool]] = [column == value for column, value in filters if value is not None]
    return await store.page(
        unit,
        INVOICE,
        paging.cursor,
        paging.limit,
        *conditions[:1],  # an index supports each of them; the others are checked row by row
        checked=conditions[1:],
        filters=f"{milestone_id} {project_id} {status}",
    )


@router.post("/{id}/void", openapi_extra=declares("billing:write", VOIDED), summary="Void a draft of an invoice")
async def void_invoice(id: str, unit: CurrentUnit, body: VoidBody | None = None) -> InvoiceOut:
    reason = body.reason if body is not None else None
    values = {"void_reason": reason, "voided_at": await unit.now()}
    row = await store.transition(unit, INVOICE, id, "void", **values)
    out: InvoiceOut = await store.emit_event(unit, INVOICE, row, "voided")
    return out
