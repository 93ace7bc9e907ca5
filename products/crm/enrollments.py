"""Enrollments: contacts on their way through a sequence. A reply or an opt-out stops all of a contact's."""

from typing import Any, Final

from sqlalchemy import select, text

from products.crm.history import tell
from products.crm.list_filters import filtered_page
from products.crm.references import Reference
from products.crm.sequence_models import (
    ENROLLMENT,
    STOPPED,
    EnrollmentOut,
    EnrollmentRow,
    EnrollmentStatus,
    StopBody,
)
from spine.kernel import jobs, store
from spine.kernel.crud import crud_router
from spine.kernel.jobs import Job
from spine.kernel.routes import CurrentUnit, Paging, declares
from spine.kernel.store import Page
from spine.kernel.unit_of_work import UnitOfWork

STOP_ENROLLMENTS: Final = "crm.stop_enrollments"
_STOPPED_AT_ONCE: Final = 100
_REPLIED = text(
    "SELECT e.id, bool_or(t.kind = 'preference.changed') AS opted_out FROM spine.enrollments e "
    "JOIN spine.timeline_entries t ON t.workspace_id = e.workspace_id AND t.subject_id = e.contact_id "
    "AND t.kind IN ('message.replied', 'preference.changed') AND t.at >= e.started_at "
    "WHERE e.workspace_id = :ws AND e.contact_id = :contact_id AND e.status = 'active' "
    "AND (cast(:id AS text) IS NULL OR e.id = :id) "
    'AND (t.kind = \'message.replied\' OR t.changes @> \'[{"field": "opted_out", "new": true}]\') '
    "GROUP BY e.id ORDER BY e.id LIMIT :most"
)

router = crud_router(ENROLLMENT, "crm", "get")


@router.get("", openapi_extra=declares("crm:read"), summary="List enrollments, newest first")
async def list_enrollments(
    unit: CurrentUnit,
    paging: Paging,
    sequence_id: Reference | None = None,
    contact_id: Reference | None = None,
    status: EnrollmentStatus | None = None,
) -> Page[EnrollmentOut]:
    return await filtered_page(
        unit,
        ENROLLMENT,
        paging,
        (EnrollmentRow.contact_id, contact_id),
        (EnrollmentRow.sequence_id, sequence_id),
        checked=[(EnrollmentRow.status, status)],
    )


@router.post("/{id}/stop", openapi_extra=declares("crm:write", STOPPED), summary="Take a contact out of a sequence")
async def stop_enrollment(id: str, unit: CurrentUnit, body: StopBody | None = None) -> EnrollmentOut:
    reason = body.reason if body is not None else "manual"
    row = await store.transition(
        unit, ENROLLMENT, id, "stopped", stop_reason=reason, ended_at=await unit.now(), held=False
    )
    return await _tell_of_stop(unit, row)


async def stop(unit: UnitOfWork, row: EnrollmentRow, reason: str) -> None:
    """Stop a locked active enrollment. A message under way still has its outcome told; no further step is sent."""
    values: dict[str, Any] = {"status": "stopped", "stop_reason": reason, "ended_at": await unit.now(), "held": False}
    await store.change(unit, ENROLLMENT, row, values)
    await _tell_of_stop(unit, row)


async def _tell_of_stop(unit: UnitOfWork, row: EnrollmentRow) -> EnrollmentOut:
    out: EnrollmentOut = await store.emit_event(unit, ENROLLMENT, row, "stopped")
    detail = {"sequence_id": row.sequence_id, "enrollment_id": row.id, "reason": row.stop_reason}
    await tell(unit, "enrollment.stopped", row.contact_id, detail=detail)
    return out


async def reasons_to_stop(unit: UnitOfWork, contact_id: str, id: str | None = None) -> dict[str, str]:
    """Return why the contact's enrollments, or this one, are to be stopped, by their id: a reply or an opt-out since they began."""
    found = await unit.session.execute(
        _REPLIED, {"ws": unit.workspace_id, "contact_id": contact_id, "id": id, "most": _STOPPED_AT_ONCE}
    )
    return {row.id: "opted_out" if row.opted_out else "replied" for row in found}


async def stop_enrollments(unit: UnitOfWork, job: Job) -> None:
    """Stop a contact's enrollments after a reply or an opt-out. Migration 0013 schedules it with the timeline's entry."""
    reasons = await reasons_to_stop(unit, job.args["contact_id"])
    rows = await unit.session.scalars(
        select(EnrollmentRow)
        .where(
            EnrollmentRow.workspace_id == unit.workspace_id,
            EnrollmentRow.id.in_(reasons),
            EnrollmentRow.status == "active",
        )
        .order_by(EnrollmentRow.id)
        .with_for_update()
    )
    for row in rows.all():
        await stop(unit, row, reasons[row.id])
    if len(reasons) == _STOPPED_AT_ONCE:
        await jobs.schedule(unit, STOP_ENROLLMENTS, job.subject_id, args=job.args)
