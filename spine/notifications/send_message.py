"""Send a message from within a unit of work: what products and their jobs call (ruling X14).

It plans, refuses and writes exactly as `POST /notifications/v1/messages` does, in the caller's transaction.
"""

from typing import Any, Final

import orjson
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from spine.kernel.database_errors import to_spine_error
from spine.kernel.errors import TooManyRequests
from spine.kernel.metrics import messages_accepted
from spine.kernel.unit_of_work import UnitOfWork
from spine.notifications.message_plan import plan_message
from spine.notifications.message_request import MessageCreate, parse_recipient
from spine.notifications.new_messages import RequestOrigin, new_message
from spine.notifications.rendering import TemplateCache
from spine.notifications.workspace_lookup import WorkspaceLookup

_LOOKUP: Final = text(
    "SELECT spine.messages_lookup(:ws, cast(:contact_ids AS text[]), cast(:phones AS text[]), cast(:emails AS text[]), "
    "cast(:templates AS text[]))::text"
)
_PUT: Final = text(
    "SELECT spine.messages_put(:ws, cast(cast(:messages AS text) AS jsonb), cast(cast(:timeline AS text) AS jsonb), "
    "cast(:event_ids AS text[]), cast(:event_types AS text[]), cast(:event_bodies AS bytea[]))"
)
_TEMPLATES: Final = TemplateCache()


async def look_up(unit: UnitOfWork, request: MessageCreate) -> WorkspaceLookup:
    """Read the rows of the workspace that a request names."""
    phone, email = parse_recipient(request.to)
    found = await unit.session.scalar(
        _LOOKUP,
        {
            "ws": unit.workspace_id,
            "contact_ids": [request.contact_id] if request.contact_id is not None else [],
            "phones": [phone] if phone is not None else [],
            "emails": [email] if email is not None else [],
            "templates": [request.template],
        },
    )
    return WorkspaceLookup(**orjson.loads(found or "{}"))


async def send_message(unit: UnitOfWork, request: MessageCreate, lookup: WorkspaceLookup | None = None) -> str:
    """Queue the message in the unit's transaction and return its id.

    Raises Unprocessable for whatever is already known to be wrong, and TooManyRequests `quota_exceeded`; nothing is written.
    """
    platform, caller = unit.platform, unit.caller
    lookup = lookup or await look_up(unit, request)
    plan = await plan_message(request, lookup, _TEMPLATES, platform.http, caller.env, platform.clock.now())
    origin = RequestOrigin(unit.workspace_id, caller.env, caller.actor, unit.request_id)
    message = new_message(origin, request, plan, platform.http.max_event_bytes)
    values: dict[str, Any] = {
        "ws": unit.workspace_id,
        "messages": orjson.dumps([message.row]).decode(),
        "timeline": orjson.dumps([message.timeline_entry]).decode(),
        "event_ids": [message.event.id],
        "event_types": [message.event.type],
        "event_bodies": [message.event.body],
    }
    try:
        async with unit.session.begin_nested():  # a used-up quota must not undo the work that the message tells of
            await unit.session.execute(_PUT, values)
    except DBAPIError as error:
        refusal = to_spine_error(error)
        if isinstance(refusal, TooManyRequests):
            raise refusal from error
        raise
    unit.wake("relay")
    unit.wake("send")
    messages_accepted("notifications").inc()
    id: str = message.row["id"]
    return id
