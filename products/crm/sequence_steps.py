"""The steps of an enrollment (C-13), each exactly once, whatever dies: every arrow is one job in one transaction.

    due ─► send the template ─► wait for the message ─► its final outcome: tell of it ─► schedule the next step, or complete
             └── cannot be sent: the outcome is `failed` ──────────┘

A step that is due while its sequence is paused is held. A reply or an opt-out stops the enrollment, also between steps.
"""

from datetime import timedelta
from typing import Any, Final

from pydantic import ValidationError
from sqlalchemy import select

from products.crm.enrollments import reasons_to_stop, stop
from products.crm.history import tell
from products.crm.sequence_models import (
    ENROLLMENT,
    STEP_EXECUTED,
    EnrollmentRow,
    EnrollmentStepRow,
    SequenceRow,
    SequenceStep,
    StepExecuted,
)
from spine.directory.contacts import ContactRow
from spine.kernel import jobs, store
from spine.kernel.errors import SpineError
from spine.kernel.jobs import Job
from spine.kernel.unit_of_work import UnitOfWork
from spine.notifications.message_models import MessageRow
from spine.notifications.message_request import MessageCreate
from spine.notifications.send_message import send_message
from spine.notifications.template_vars import VARIABLE_NAME

OPTED_OUT: Final = "opted_out"
RUN_STEP: Final = "crm.run_sequence_step"
AWAIT_OUTCOME: Final = "crm.await_step_outcome"
_LOOK_AGAIN: Final = timedelta(hours=1)
_MAX_VAR_CHARS: Final = 500


async def run_step(unit: UnitOfWork, job: Job) -> None:
    """Send the step that is due, unless the sequence is paused or the contact has answered."""
    row = await _locked(unit, job.subject_id)
    if row is None or row.status != "active" or row.step != job.args["step"] or row.message_id is not None:
        return
    sequence = await _sequence(unit, row)
    if sequence.status == "paused":
        await store.change(unit, ENROLLMENT, row, {"held": True})
        return
    reason = (await reasons_to_stop(unit, row.contact_id, row.id)).get(row.id)
    if reason is not None:
        await stop(unit, row, reason)
        return
    step = SequenceStep.model_validate(sequence.steps[row.step])
    try:
        async with unit.session.begin_nested():
            message_id = await send_message(unit, await _request(unit, row, step))
    except SpineError as error:
        await _finish(unit, row, sequence, outcome="failed", reason=f"{error.code}: {error.detail}")
    except ValidationError as error:
        await _finish(unit, row, sequence, outcome="failed", reason=f"validation_failed: {error.errors()[0]['msg']}")
    else:
        await store.change(unit, ENROLLMENT, row, {"message_id": message_id})
        await _wait(unit, row.id, message_id)


async def _request(unit: UnitOfWork, row: EnrollmentRow, step: SequenceStep) -> MessageCreate:
    """Return the step's message: its variables are the contact's name and plain fields, then the step's own."""
    query = select(ContactRow.name, ContactRow.fields).where(
        ContactRow.workspace_id == unit.workspace_id, ContactRow.id == row.contact_id
    )
    contact = (await unit.session.execute(query)).one()
    fields = {
        name: value
        for name, value in contact.fields.items()
        if VARIABLE_NAME.fullmatch(name) and isinstance(value, str | int | float) and len(str(value)) <= _MAX_VAR_CHARS
    }
    own = dict(list(fields.items())[: 99 - len(step.vars)])
    return MessageCreate(
        contact_id=row.contact_id,
        template=step.template,
        channels=step.channels,
        vars={"name": contact.name, **own, **step.vars},
        metadata={"sequence_id": row.sequence_id, "enrollment_id": row.id, "step": str(row.step)},
    )


async def _locked(unit: UnitOfWork, id: str) -> EnrollmentRow | None:
    query = select(EnrollmentRow).where(EnrollmentRow.workspace_id == unit.workspace_id, EnrollmentRow.id == id)
    row: EnrollmentRow | None = await unit.session.scalar(query.with_for_update())
    return row


async def _sequence(unit: UnitOfWork, row: EnrollmentRow) -> SequenceRow:
    """Return the enrollment's sequence. It is locked, so that a step is held or sent, never missed by a resume."""
    query = select(SequenceRow).where(SequenceRow.workspace_id == unit.workspace_id, SequenceRow.id == row.sequence_id)
    return (await unit.session.scalars(query.with_for_update(read=True))).one()


async def _wait(unit: UnitOfWork, enrollment_id: str, message_id: str) -> None:
    """Look at the message as soon as it changes, and now and then in any case."""
    due_at = await unit.now() + _LOOK_AGAIN
    await jobs.schedule(
        unit, AWAIT_OUTCOME, enrollment_id, due_at, args={"message_id": message_id}, message_id=message_id
    )


async def await_outcome(unit: UnitOfWork, job: Job) -> None:
    """Tell of the step once its message has ended. The message is locked, so that no change of it is missed."""
    message_id: str = job.args["message_id"]
    message = (
        await unit.session.execute(
            select(MessageRow.status, MessageRow.channel, MessageRow.ended_at, MessageRow.reasons)
            .where(MessageRow.workspace_id == unit.workspace_id, MessageRow.id == message_id)
            .with_for_update(read=True)
        )
    ).one_or_none()
    row = await _locked(unit, job.subject_id)
    if row is None or row.message_id != message_id:
        return
    if message is not None and message.ended_at is None:
        await _wait(unit, row.id, message_id)
        return
    sequence = await _sequence(unit, row)
    if message is None:
        await _finish(unit, row, sequence, outcome="failed", reason="the message is past its retention")
        return
    reasons = [one["reason"] for one in message.reasons] if message.status == "failed" else []
    reason = reasons[-1] if reasons else None
    await _finish(unit, row, sequence, outcome=message.status, channel=message.channel, reason=reason)
    if row.status == "active" and set(reasons) == {OPTED_OUT}:
        await stop(unit, row, OPTED_OUT)


async def _finish(
    unit: UnitOfWork,
    row: EnrollmentRow,
    sequence: SequenceRow,
    *,
    outcome: str,
    channel: str | None = None,
    reason: str | None = None,
) -> None:
    """Tell what became of the step, and go on: to the next step, or to the end."""
    message_id, step = row.message_id, row.step
    unit.session.add(
        EnrollmentStepRow(
            workspace_id=unit.workspace_id,
            enrollment_id=row.id,
            step=step,
            message_id=message_id,
            channel=channel,
            outcome=outcome,
            reason=reason,
            ended_at=await unit.now(),
        )
    )
    values: dict[str, Any] = {}
    last = step + 1 == len(sequence.steps)
    if row.status == "active":
        values = (
            {"status": "completed", "ended_at": await unit.now()} if last else {"step": step + 1, "message_id": None}
        )
    await store.change(unit, ENROLLMENT, row, values)
    await unit.session.flush()
    await unit.session.refresh(row, ["executed_steps"])
    fields = {"sequence_id": row.sequence_id, "enrollment_id": row.id, "step": step}
    data = StepExecuted(
        **fields, contact_id=row.contact_id, channel=channel, message_id=message_id, outcome=outcome, reason=reason
    )
    unit.emit(STEP_EXECUTED, data, sequence=row.version)
    await tell(
        unit,
        "sequence.step_executed",
        row.contact_id,
        detail={**fields, "channel": channel, "message_id": message_id, "outcome": outcome, "reason": reason},
    )
    if row.status == "completed":
        await store.emit_event(unit, ENROLLMENT, row, "completed")
    elif row.status == "active":
        due_at = await unit.now() + timedelta(seconds=sequence.steps[row.step]["delay_s"])
        await jobs.schedule(unit, RUN_STEP, row.id, due_at, args={"step": row.step})
