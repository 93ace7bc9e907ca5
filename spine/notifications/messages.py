"""The message resource: send one message or a batch, read messages with their attempts, cancel, read the timeline."""

from typing import Annotated, Any, Final

from pydantic import BaseModel, Field
from sqlalchemy import select, text

from spine.kernel import store, timeline
from spine.kernel.accept_routes import AcceptRoute, add_accept_routes
from spine.kernel.errors import IllegalTransition
from spine.kernel.resource import Body, Resource
from spine.kernel.routes import CurrentUnit, Paging, declares, new_router
from spine.kernel.store import Page
from spine.kernel.timeline import TimelineEntry
from spine.kernel.unit_of_work import UnitOfWork
from spine.notifications.accept import accept
from spine.notifications.message_events import CANCELLED, CREATED, DELIVERED, FAILED, REPLIED, SENT, MessageEvent
from spine.notifications.message_models import (
    AttemptOut,
    AttemptRow,
    MessageOut,
    MessageRow,
    Status,
    message_fields,
)
from spine.notifications.message_request import MessageCreate

MESSAGE = Resource(
    noun="message",
    row=MessageRow,
    create=None,
    update=None,
    out=MessageOut,
    scope="notifications",
    events=(CREATED, SENT, DELIVERED, FAILED, REPLIED, CANCELLED),
    states={
        Status.QUEUED: frozenset({Status.SENDING, Status.SCHEDULED, Status.FAILED, Status.CANCELLED}),
        Status.SCHEDULED: frozenset({Status.SENDING, Status.FAILED, Status.CANCELLED}),
        Status.SENDING: frozenset({Status.SENT, Status.DELIVERED, Status.READ, Status.FAILED}),
        Status.SENT: frozenset({Status.SENDING, Status.DELIVERED, Status.READ, Status.FAILED}),
        Status.DELIVERED: frozenset({Status.READ}),
        Status.READ: frozenset(),
        Status.FAILED: frozenset({Status.DELIVERED, Status.READ}),
        Status.CANCELLED: frozenset(),
    },
)

MAX_BATCH: Final = 1000
_CANCELLABLE: Final = frozenset({Status.QUEUED, Status.SCHEDULED})


class MessageBatch(Body):
    messages: Annotated[list[MessageCreate], Field(min_length=1, max_length=MAX_BATCH)]


class MessagesOut(BaseModel):
    """The messages of a batch, in its order."""

    data: list[MessageOut]


router = new_router("/notifications/v1/messages", "messages", MESSAGE)
add_accept_routes(
    router,
    accept,
    AcceptRoute("create_message", MessageCreate, MessageOut, "Send a message"),
    AcceptRoute("create_messages", MessageBatch, MessagesOut, "Send up to 1,000 messages, all or none"),
    items_of=lambda body: body.messages,
    extra=declares("notifications:write", CREATED, tool="notifications_send"),
)


def _columns(row: MessageRow) -> dict[str, Any]:
    return {column.name: getattr(row, prop.key) for prop in row.__mapper__.column_attrs for column in prop.columns}


async def _with_attempts(unit: UnitOfWork, rows: list[MessageRow]) -> list[MessageOut]:
    query = (
        select(AttemptRow)
        .where(AttemptRow.workspace_id == unit.workspace_id, AttemptRow.message_id.in_([row.id for row in rows]))
        .order_by(AttemptRow.step, AttemptRow.number)
    )
    attempts: dict[str, list[AttemptOut]] = {}
    for attempt in await unit.session.scalars(query):
        attempts.setdefault(attempt.message_id, []).append(AttemptOut.model_validate(attempt))
    return [
        MessageOut.model_validate(message_fields(_columns(row)) | {"attempts": attempts.get(row.id, [])})
        for row in rows
    ]


@router.get(
    "/{id}",
    openapi_extra=declares("notifications:read", tool="notifications_get_message"),
    summary="Read a message, with its attempts and receipt",
)
async def get_message(id: str, unit: CurrentUnit) -> MessageOut:
    row = await store.get(unit, MESSAGE, id)
    return (await _with_attempts(unit, [row]))[0]


@router.get(
    "",
    openapi_extra=declares("notifications:read", tool="notifications_list_messages"),
    summary="List messages, newest first",
)
async def list_messages(
    unit: CurrentUnit,
    paging: Paging,
    contact_id: Annotated[str, Field(max_length=64)] | None = None,
    status: Status | None = None,
) -> Page[MessageOut]:
    page: Page[Any] = await store.page(
        unit,
        MESSAGE,
        paging.cursor,
        paging.limit,
        *([MessageRow.contact_id == contact_id] if contact_id is not None else []),
        checked=[MessageRow.status == status] if status is not None else [],
        filters=f"{contact_id} {status}",
        out=lambda row: row,
    )
    return Page(data=await _with_attempts(unit, page.data), has_more=page.has_more, next_cursor=page.next_cursor)


@router.post(
    "/{id}/cancel",
    openapi_extra=declares("notifications:write", CANCELLED),
    summary="Cancel a message that nothing was sent of yet",
)
async def cancel_message(id: str, unit: CurrentUnit) -> MessageOut:
    row: MessageRow = await store.get(unit, MESSAGE, id, lock=True)
    if row.status not in _CANCELLABLE:
        raise IllegalTransition(
            f"it is {row.status}; only a queued or scheduled message can be cancelled",
            allowed=sorted(state for state in MESSAGE.states[Status(row.status)] if state != Status.SCHEDULED),
        )
    now = await unit.now()
    await store.change(unit, MESSAGE, row, {"status": Status.CANCELLED, "ended_at": now, "sequence": row.sequence + 1})
    await unit.session.execute(
        text("DELETE FROM spine.sends_open WHERE workspace_id = :ws AND id = :id"), {"ws": unit.workspace_id, "id": id}
    )
    await timeline.append(unit, id, "message.cancelled", detail={"status": Status.CANCELLED})
    out = (await _with_attempts(unit, [row]))[0]
    unit.emit(CANCELLED, MessageEvent(**out.model_dump(), message_id=id), sequence=row.sequence)
    return out


@router.get(
    "/{id}/audit",
    openapi_extra=declares("notifications:read", tool="notifications_audit_message"),
    summary="A message's timeline, oldest first",
)
async def get_message_audit(id: str, unit: CurrentUnit, paging: Paging) -> Page[TimelineEntry]:
    await store.get(unit, MESSAGE, id)
    return await timeline.page(unit, id, paging)
