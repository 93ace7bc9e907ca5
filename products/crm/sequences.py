"""Sequences: templates that are sent to a contact one after the other, each some time after the one before."""

from datetime import timedelta
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm.attributes import set_committed_value

from products.crm.history import tell
from products.crm.list_filters import filtered_page
from products.crm.references import known_contact
from products.crm.sequence_models import (
    CREATED,
    ENROLLED,
    ENROLLMENT,
    PAUSED,
    RESUMED,
    SEQUENCE,
    EnrollBody,
    EnrollmentOut,
    EnrollmentRow,
    SequenceCreate,
    SequenceOut,
    SequenceRow,
    SequenceStatus,
)
from products.crm.sequence_steps import RUN_STEP
from spine.kernel import jobs, store
from spine.kernel.crud import crud_router
from spine.kernel.jobs import Job
from spine.kernel.routes import CurrentUnit, Paging, declares
from spine.kernel.store import Page
from spine.kernel.unit_of_work import UnitOfWork

RELEASE_HELD: Final = "crm.release_held_enrollments"
_RELEASED_AT_ONCE: Final = 200

router = crud_router(SEQUENCE, "crm", "get")


@router.post("", status_code=201, openapi_extra=declares("crm:write", CREATED), summary="Create a sequence")
async def create_sequence(body: SequenceCreate, unit: CurrentUnit) -> SequenceOut:
    values = store.columns(body) | {"steps": [step.model_dump() for step in body.steps]}
    row = await store.create(unit, SEQUENCE, **values)
    out: SequenceOut = await store.emit_event(unit, SEQUENCE, row, "created")
    return out


@router.get("", openapi_extra=declares("crm:read"), summary="List sequences, newest first")
async def list_sequences(unit: CurrentUnit, paging: Paging, status: SequenceStatus | None = None) -> Page[SequenceOut]:
    return await filtered_page(unit, SEQUENCE, paging, checked=[(SequenceRow.status, status)])


@router.post(
    "/{id}/enroll",
    status_code=201,
    openapi_extra=declares("crm:write", ENROLLED, listed_at="/crm/v1/enrollments"),
    summary="Begin a sequence with a contact",
)
async def enroll_contact(id: str, body: EnrollBody, unit: CurrentUnit) -> EnrollmentOut:
    sequence: SequenceRow = await store.get(unit, SEQUENCE, id)
    contact = await known_contact(unit, body.contact_id)
    now = await unit.now()
    row = await store.create(
        unit, ENROLLMENT, sequence_id=sequence.id, contact_id=contact.id, started_at=now, meta=body.metadata
    )
    set_committed_value(row, "executed_steps", [])
    due_at = now + timedelta(seconds=sequence.steps[0]["delay_s"])
    await jobs.schedule(unit, RUN_STEP, row.id, due_at, args={"step": 0})
    out = EnrollmentOut.model_validate(row)
    unit.emit(ENROLLED, out, sequence=row.version)
    await tell(unit, "sequence.enrolled", contact.id, detail={"sequence_id": id, "enrollment_id": row.id})
    return out


@router.post("/{id}/pause", openapi_extra=declares("crm:write", PAUSED), summary="Pause a sequence; due steps wait")
async def pause_sequence(id: str, unit: CurrentUnit) -> SequenceOut:
    row = await store.transition(unit, SEQUENCE, id, "paused")
    out: SequenceOut = await store.emit_event(unit, SEQUENCE, row, "paused")
    return out


@router.post("/{id}/resume", openapi_extra=declares("crm:write", RESUMED), summary="Go on with a paused sequence")
async def resume_sequence(id: str, unit: CurrentUnit) -> SequenceOut:
    row = await store.transition(unit, SEQUENCE, id, "active")
    await jobs.schedule(unit, RELEASE_HELD, row.id)
    out: SequenceOut = await store.emit_event(unit, SEQUENCE, row, "resumed")
    return out


async def release_held(unit: UnitOfWork, job: Job) -> None:
    """Run the steps that were due while the sequence was paused, some enrollments at a time."""
    status = await unit.session.scalar(
        select(SequenceRow.status)
        .where(SequenceRow.workspace_id == unit.workspace_id, SequenceRow.id == job.subject_id)
        .with_for_update(read=True)
    )
    if status != "active":
        return  # paused again: the next resume releases them
    held = select(EnrollmentRow).where(
        EnrollmentRow.workspace_id == unit.workspace_id,
        EnrollmentRow.sequence_id == job.subject_id,
        EnrollmentRow.held,
    )
    rows = (
        await unit.session.scalars(held.order_by(EnrollmentRow.id).limit(_RELEASED_AT_ONCE).with_for_update())
    ).all()
    for row in rows:
        row.held = False
        await jobs.schedule(unit, RUN_STEP, row.id, args={"step": row.step})
    await store.flush(unit, EnrollmentRow)
    if len(rows) == _RELEASED_AT_ONCE:
        await jobs.schedule(unit, RELEASE_HELD, job.subject_id)
