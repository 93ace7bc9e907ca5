"""Queues: the open tasks of a user, the most urgent first, in one call and one query (W-14, P-27), and as a live stream.

A queue is capped and not paged: due times change, and a cursor over them would skip or repeat (conventions 2.2).
"""

from collections.abc import AsyncIterator
from typing import Annotated, Final

from fastapi import Depends, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, Field
from sqlalchemy import BigInteger, column, select, table, true
from sqlalchemy.orm import aliased

from products.works.live_queues import LiveQueues, Shown, Subscription
from products.works.tasks import IS_OPEN, TaskOut, TaskRow
from spine.directory.users import USER, UserRow
from spine.kernel import ids, store
from spine.kernel.routes import CurrentUnit, RequestContext, declares, new_router, request_context
from spine.kernel.unit_of_work import UnitOfWork

MAX_TASKS: Final = 200
RETRY_MS: Final = 2000
"""After so long a client connects again."""
SCOPE: Final = "works:read"
_VERSIONS: Final = table(
    "task_queues", column("workspace_id"), column("user_id"), column("version", BigInteger), schema="spine"
)


class QueueOut(BaseModel):
    """A user's tasks that are open or in progress, by due time; those without one come last."""

    object: str = "queue"
    user_id: str
    version: int = Field(description="Rises with each change of the queue.")
    data: list[TaskOut]
    truncated: bool = Field(description=f"True if there are more than these {MAX_TASKS} tasks.")


async def read_queue(unit: UnitOfWork, user_id: str) -> QueueOut:
    """Return a user's queue. Raises NotFound if there is no such user."""
    order = (TaskRow.due_at.nulls_last(), TaskRow.id)
    found = (
        select(TaskRow)
        .where(TaskRow.workspace_id == unit.workspace_id, TaskRow.assignee_id == user_id, IS_OPEN)
        .order_by(*order)
        .limit(MAX_TASKS + 1)
        .subquery()
    )
    task = aliased(TaskRow, found)
    of_user = (_VERSIONS.c.workspace_id == UserRow.workspace_id) & (_VERSIONS.c.user_id == UserRow.id)
    query = (
        select(_VERSIONS.c.version, task)
        .select_from(UserRow)
        .outerjoin(_VERSIONS, of_user)
        .outerjoin(task, true())
        .where(UserRow.workspace_id == unit.workspace_id, UserRow.id == user_id)
        .order_by(task.due_at.nulls_last(), task.id)
    )
    rows = (await unit.session.execute(query)).all() if ids.is_id(user_id, USER.prefix) else []
    if not rows:
        raise store.not_found(USER)
    tasks = [TaskOut.model_validate(row) for _, row in rows[:MAX_TASKS] if row is not None]
    return QueueOut(user_id=user_id, version=rows[0].version or 0, data=tasks, truncated=len(rows) > MAX_TASKS)


async def show_queue(unit: UnitOfWork, user_id: str) -> Shown:
    """Return a user's queue as streams send it. Raises NotFound."""
    queue = await read_queue(unit, user_id)
    return Shown(queue.version, queue.model_dump_json())


router = new_router("/works/v1/queues", "queues")


@router.get(
    "/{id}", openapi_extra=declares(SCOPE, tool="works_list_open_tasks"), summary="A user's open tasks, by due time"
)
async def get_queue(id: str, unit: CurrentUnit) -> QueueOut:
    return await read_queue(unit, id)


async def _subscription(
    id: str, request: Request, context: Annotated[RequestContext, Depends(request_context)]
) -> AsyncIterator[Subscription]:
    """Subscribe before the stream begins, so that errors are answered, until it ends."""
    live: LiveQueues = request.app.state.live_queues
    async with live.subscribe(context.caller, id) as subscription:
        yield subscription


@router.get(
    "/{id}/stream",
    response_class=EventSourceResponse,
    openapi_extra=declares(SCOPE),
    summary="A user's queue as server-sent events: at once, and again after each change",
)
async def stream_queue(
    request: Request, subscription: Annotated[Subscription, Depends(_subscription)]
) -> AsyncIterator[ServerSentEvent]:
    authorization, is_stopping = request.headers["authorization"], request.scope["spine.stopping"].is_set
    retry: int | None = RETRY_MS
    async for shown in subscription.changes(authorization, SCOPE, is_stopping):
        yield ServerSentEvent(raw_data=shown.body, event="queue", id=str(shown.version), retry=retry)
        retry = None
