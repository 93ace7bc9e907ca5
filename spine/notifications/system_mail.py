"""System mail: messages from Spine to the owner of a workspace, sent as e-mail over the workspace's own account.

The workspace's own template is used if it has one with the slug of the mail. Else one is created from the built-in text.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from spine.directory.addresses import SANDBOX_READER
from spine.kernel import ids
from spine.kernel.events import SYSTEM
from spine.kernel.settings import HttpSettings
from spine.notifications.locked_messages import Connection
from spine.notifications.message_plan import plan_message
from spine.notifications.message_request import MessageCreate, To
from spine.notifications.new_messages import RequestOrigin, new_event, new_message
from spine.notifications.provider_kinds import Channel
from spine.notifications.rendering import TemplateCache
from spine.notifications.templates import CREATED, DEFAULT_CATEGORY, TemplateOut
from spine.notifications.workspace_lookup import WorkspaceLookup

_OWNER: Final = """
    SELECT w.env, o.name, o.email, clock_timestamp() AS now FROM spine.workspaces w JOIN spine.organisations o ON o.id = w.organisation_id
     WHERE w.workspace_id = $1
"""
_LOOKUP: Final = "SELECT spine.messages_lookup($1, '{}', '{}', $2::text[], $3::text[])"
_TEMPLATE_PUT: Final = """
    INSERT INTO spine.templates (workspace_id, id, slug, locale, bodies, required_vars, category)
    VALUES ($1, $2, $3, 'en', $4, $5, $6) ON CONFLICT DO NOTHING RETURNING *
"""
_SETTINGS: Final = HttpSettings.model_construct()
"""The default limits: an operator who changes them does so for larger messages than these."""
_EVENT_PUT: Final = "SELECT spine.events_put($1::text[], $2::text[], $3::bytea[])"
_PUT: Final = "SELECT spine.messages_put($1, $2, $3, $4::text[], $5::text[], $6::bytea[])"


@dataclass(frozen=True, slots=True)
class SystemMail:
    """A kind of system mail: the slug of its template, and the built-in text."""

    slug: str
    subject: str
    text: str
    vars: tuple[str, ...]


ENDPOINT_DISABLED: Final = SystemMail(
    slug="webhook_endpoint_disabled",
    subject="Webhook endpoint disabled: {{ url }}",
    text=(
        "Every delivery to {{ url }} has failed since {{ failing_since }}, so this webhook endpoint of the {{ env }} "
        "environment of {{ organisation }} was disabled at {{ disabled_at }}.\n\n"
        "Nothing is lost: its events are held. Mend the receiver, then enable the endpoint and say what is to become "
        "of them:\n\n"
        'POST /v1/webhook_endpoints/{{ endpoint_id }}/enable with {"held": "all"}\n'
    ),
    vars=("endpoint_id", "url", "failing_since", "disabled_at", "env", "organisation"),
)
"""Sent when an endpoint is disabled because its deliveries fail (webhooks.md, promise 4)."""


async def queue_system_mail(
    connection: Connection, workspace_id: str, mail: SystemMail, vars: Mapping[str, Any]
) -> str:
    """Queue the message in the running transaction and return its id. Wake `relay` and `send` after the commit.

    `env` and `organisation` are added to the variables. Raises SpineError if the message cannot be sent: mostly because
    the workspace has no e-mail account.
    """
    owner = await connection.fetchrow(_OWNER, workspace_id)
    assert owner is not None
    origin = RequestOrigin(workspace_id, owner["env"], SYSTEM, ids.mint(ids.PREFIXES["request"]))
    # A test workspace sends to the sandbox only; its message shows what a live workspace would send.
    email = owner["email"] if origin.env == "live" else SANDBOX_READER
    lookup = await _lookup(connection, origin, email, mail)
    request = MessageCreate(
        to=To(email=email),
        template=mail.slug,
        channels=[Channel.EMAIL],
        vars={**vars, "env": owner["env"], "organisation": owner["name"]},
    )
    plan = await plan_message(request, lookup, TemplateCache(), _SETTINGS, origin.env, owner["now"])
    message = new_message(origin, request, plan, _SETTINGS.max_event_bytes)
    await connection.execute(
        _PUT,
        workspace_id,
        [message.row],
        [message.timeline_entry],
        [message.event.id],
        [message.event.type],
        [message.event.body],
    )
    id: str = message.row["id"]
    return id


async def _lookup(connection: Connection, origin: RequestOrigin, email: str, mail: SystemMail) -> WorkspaceLookup:
    """Look up the workspace's rows. Creates the mail's template first if the workspace has none."""
    args = (origin.workspace_id, [email], [mail.slug])
    lookup = WorkspaceLookup(**await connection.fetchval(_LOOKUP, *args))
    if not lookup.templates:
        row = await connection.fetchrow(
            _TEMPLATE_PUT,
            origin.workspace_id,
            ids.mint(ids.PREFIXES["template"]),
            mail.slug,
            {"email": {"subject": mail.subject, "text": mail.text}},
            mail.vars,
            DEFAULT_CATEGORY,
        )
        if row is not None:
            template = TemplateOut.model_validate({**row, "meta": row["metadata"]})
            event = new_event(origin, CREATED, datetime.now(UTC), template, _SETTINGS.max_event_bytes)
            await connection.execute(_EVENT_PUT, [event.id], [event.type], [event.body])
        lookup = WorkspaceLookup(**await connection.fetchval(_LOOKUP, *args))
    return lookup
