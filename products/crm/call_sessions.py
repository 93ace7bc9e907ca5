"""Call sessions: a contact in touch right now, by voice, chat or anything else (C-03, C-05, C-08).

    open ─► read the context ─► collect fields, many times ─► finalize (`call_finalization`)
      └── its time is over ─► abandoned

A session that is not finalized never makes a lead.
"""

from datetime import timedelta
from typing import Any, Final

import orjson
from sqlalchemy import ColumnElement, and_, func, or_

from products.crm.call_session_models import (
    CALL_SESSION,
    DEFAULT_SCHEMA,
    FIELDS_COLLECTED,
    MAX_FIELDS,
    MAX_FIELDS_BYTES,
    OPENED,
    CallSessionCreate,
    CallSessionFieldsCollected,
    CallSessionOut,
    CallSessionRow,
    CollectedFields,
    Status,
    session_out,
)
from products.crm.history import tell
from products.crm.references import Reference
from spine.directory import contacts
from spine.kernel import jobs, store
from spine.kernel.errors import IllegalTransition, Unprocessable
from spine.kernel.jobs import Job
from spine.kernel.routes import CurrentUnit, IfMatch, Paging, declares, new_router, version_of
from spine.kernel.store import Page
from spine.kernel.unit_of_work import UnitOfWork

ABANDON: Final = "crm.abandon_call_session"

router = new_router("/crm/v1/call_sessions", "call_sessions", CALL_SESSION)


async def open_session(unit: UnitOfWork, id: str) -> CallSessionRow:
    """Return the locked session if it is open. Raises NotFound, IllegalTransition."""
    row: CallSessionRow = await store.get(unit, CALL_SESSION, id, lock=True)
    status = session_out(row, await unit.now()).status
    if status != "open":
        raise IllegalTransition(f"the call session is {status}; only an open one goes on", allowed=[])
    return row


@router.post(
    "",
    status_code=201,
    openapi_extra=declares("crm:write", OPENED, contacts.CREATED),
    summary="Open a call session, and match its contact",
)
async def create_call_session(body: CallSessionCreate, unit: CurrentUnit) -> CallSessionOut:
    contact, is_new = await contacts.match(unit, name=body.name, phone=body.phone, email=body.email)
    schema = DEFAULT_SCHEMA if body.field_schema is None else body.field_schema
    expires_at = await unit.now() + timedelta(seconds=unit.platform.http.call_session_ttl_s)
    row = await store.create(
        unit,
        CALL_SESSION,
        contact_id=contact.id,
        phone=body.phone,
        email=body.email,
        channel=body.channel,
        match="new" if is_new else "existing",
        field_schema=[field.model_dump() for field in schema],
        expires_at=expires_at,
        meta=body.metadata,
    )
    await jobs.schedule(unit, ABANDON, row.id, expires_at)
    await tell(unit, "call_session.opened", contact.id, detail={"call_session_id": row.id, "channel": row.channel})
    out: CallSessionOut = await store.emit_event(unit, CALL_SESSION, row, "opened")
    return out


@router.get("/{id}", openapi_extra=declares("crm:read"), summary="Read a call session")
async def get_call_session(id: str, unit: CurrentUnit) -> CallSessionOut:
    return session_out(await store.get(unit, CALL_SESSION, id), await unit.now())


@router.get("", openapi_extra=declares("crm:read"), summary="List call sessions, newest first")
async def list_call_sessions(
    unit: CurrentUnit, paging: Paging, contact_id: Reference | None = None, status: Status | None = None
) -> Page[CallSessionOut]:
    now = await unit.now()
    return await store.page(
        unit,
        CALL_SESSION,
        paging.cursor,
        paging.limit,
        *([CallSessionRow.contact_id == contact_id] if contact_id is not None else []),
        checked=[_in_status(status)] if status is not None else [],
        filters=f"{contact_id} {status}",
        out=lambda row: session_out(row, now),
    )


def _in_status(status: Status) -> ColumnElement[bool]:
    expired = and_(CallSessionRow.status == "open", CallSessionRow.expires_at <= func.now())
    if status == "open":
        return and_(CallSessionRow.status == "open", CallSessionRow.expires_at > func.now())
    return or_(CallSessionRow.status == status, expired) if status == "abandoned" else CallSessionRow.status == status


@router.patch(
    "/{id}/fields",
    openapi_extra=declares("crm:write", FIELDS_COLLECTED),
    summary="Collect fields; of each field the last value stays",
)
async def collect_fields(id: str, body: CollectedFields, unit: CurrentUnit, if_match: IfMatch = None) -> CallSessionOut:
    row = await open_session(unit, id)
    fields: dict[str, Any] = {**row.fields, **body.root}
    if len(fields) > MAX_FIELDS or len(orjson.dumps(fields)) > MAX_FIELDS_BYTES:
        raise Unprocessable(
            f"a session holds {MAX_FIELDS} fields and {MAX_FIELDS_BYTES} bytes of them at most",
            code="too_many_fields",
            param="fields",
        )
    changed = await store.change(unit, CALL_SESSION, row, {"fields": fields}, version_of(if_match))
    out = CallSessionOut.model_validate(row)
    if changed:
        data = CallSessionFieldsCollected(**out.model_dump(), collected=body.root)
        unit.emit(FIELDS_COLLECTED, data, sequence=row.version)
    return out


async def abandon(unit: UnitOfWork, job: Job) -> None:
    """Abandon a session whose time is over, if it is open still."""
    row: CallSessionRow = await store.get(unit, CALL_SESSION, job.subject_id, lock=True)
    if row.status != "open":
        return
    await store.change(unit, CALL_SESSION, row, {"status": "abandoned"})
    await store.emit_event(unit, CALL_SESSION, row, "abandoned")
    await tell(unit, "call_session.abandoned", row.contact_id, detail={"call_session_id": row.id})
