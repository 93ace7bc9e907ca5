"""Accept messages: look up what their requests name, plan each, and commit all of them in one round trip.

lookup ─► plan each ─► one statement: idempotency key + messages + timeline + send queue + events
            └─ a refusal is stored as the result of the idempotency key
"""

from collections.abc import Sequence
from typing import Final

import asyncpg

from spine.kernel.accept import AcceptRequest, prefix_error_params, render_batch
from spine.kernel.authentication import Caller
from spine.kernel.errors import SpineError
from spine.kernel.idempotency import KEY_TTL, StoredResponse, require_replayable
from spine.kernel.metrics import idempotent_replay, messages_accepted
from spine.kernel.platform import Platform
from spine.kernel.turns import Turns
from spine.notifications.message_plan import MessagePlan, plan_message
from spine.notifications.message_request import MessageCreate, parse_recipient
from spine.notifications.new_messages import NewMessage, RequestOrigin, new_message
from spine.notifications.rendering import TemplateCache
from spine.notifications.workspace_lookup import WorkspaceLookup

PATH: Final = "/notifications/v1/messages"
_LOOKUP: Final = "SELECT spine.messages_lookup($1, $2::text[], $3::text[], $4::text[], $5::text[])"
_ACCEPT: Final = "SELECT * FROM spine.messages_accept($1, $2, $3, $4, 201::smallint, $5, $6, $7, $8, $9::text[], $10::text[], $11::bytea[])"

_TEMPLATES: Final = TemplateCache()
"""The parsed templates of this process. A version of a template never changes, so no entry expires."""


async def accept(
    request: AcceptRequest, messages: Sequence[MessageCreate], *, batch: bool
) -> tuple[StoredResponse, bool]:
    """Commit the messages. Returns the response, and whether it is a replay of an earlier one. Raises Conflict."""
    async with request.hold_key():
        return await _accept(request, messages, batch)


async def _accept(
    request: AcceptRequest, messages: Sequence[MessageCreate], batch: bool
) -> tuple[StoredResponse, bool]:
    platform, caller, claim = request.platform, request.caller, request.claim
    try:
        plans = await plan_messages(platform, caller, messages, batch=batch)
    except SpineError as error:
        refused = await request.store_refusal(error)
        return (refused, False) if isinstance(refused, StoredResponse) else _replay(request, refused)
    origin = RequestOrigin(caller.workspace_id, caller.env, caller.actor, request.request_id)
    created: list[NewMessage] = []
    for n, (message, plan) in enumerate(zip(messages, plans, strict=True)):
        with prefix_error_params(f"messages.{n}" if batch else None):
            created.append(new_message(origin, message, plan, platform.http.max_event_bytes))
    body = render_batch([one.response_body for one in created], batch=batch)
    location = None if batch else f"{PATH}/{created[0].row['id']}"
    row = await platform.pool.fetchrow(
        _ACCEPT, caller.workspace_id, claim.key, claim.fingerprint, KEY_TTL, location, body,
        [one.row for one in created], [one.timeline_entry for one in created],
        [one.event.id for one in created], [one.event.type for one in created], [one.event.body for one in created],
    )  # fmt: skip
    assert row is not None
    if not row["claimed"]:
        return _replay(request, row)
    platform.wakeups.wake("relay")
    platform.wakeups.wake("send")
    messages_accepted("notifications").inc(len(created))
    return StoredResponse(201, body, location), False


def _replay(request: AcceptRequest, row: asyncpg.Record) -> tuple[StoredResponse, bool]:
    require_replayable(row, request.claim)
    idempotent_replay()
    return StoredResponse(row["status"], row["body"], row["location"]), True


async def plan_messages(
    platform: Platform, caller: Caller, requests: Sequence[MessageCreate], *, batch: bool = False
) -> list[MessagePlan]:
    """Plan each of these requests. Raises Unprocessable for the first one that cannot be sent."""
    recipients: list[tuple[str | None, str | None]] = []
    for n, request in enumerate(requests):
        with prefix_error_params(f"messages.{n}" if batch else None):
            recipients.append(parse_recipient(request.to))
    lookup = await _lookup(platform, caller, requests, recipients)
    plans: list[MessagePlan] = []
    now = platform.clock.now()
    turns = Turns()
    for n, request in enumerate(requests):
        with prefix_error_params(f"messages.{n}" if batch else None):
            plans.append(await plan_message(request, lookup, _TEMPLATES, platform.http, caller.env, now))
        await turns.give()
    return plans


async def _lookup(
    platform: Platform,
    caller: Caller,
    requests: Sequence[MessageCreate],
    recipients: Sequence[tuple[str | None, str | None]],
) -> WorkspaceLookup:
    found = await platform.pool.fetchval(
        _LOOKUP,
        caller.workspace_id,
        list({request.contact_id for request in requests if request.contact_id is not None}),
        list({phone for phone, _ in recipients if phone is not None}),
        list({email for _, email in recipients if email is not None}),
        list({request.template for request in requests}),
    )
    return WorkspaceLookup(**found)
