"""Messages of Spine itself to the owner of a workspace: by e-mail, over the workspace's own account, like any other.

The template is the workspace's own where it has made one with our slug, and is made of the built-in text elsewhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from spine.directory.addresses import SANDBOX_READER
from spine.kernel import ids
from spine.kernel.events import SYSTEM, NewEvent, event_body
from spine.notifications.locked_messages import Connection
from spine.notifications.message_plan import MessageCreate, To, WorkspaceLookup, plan
from spine.notifications.new_messages import RequestOrigin, new_message
from spine.notifications.provider_kinds import Channel
from spine.notifications.rendering import Templates
from spine.notifications.templates import CREATED, DEFAULT_CATEGORY, TemplateOut

OWNER: Final = """
    SELECT w.env, o.name, o.email FROM spine.workspaces w JOIN spine.organisations o ON o.id = w.organisation_id
     WHERE w.workspace_id = $1
"""
LOOKUP: Final = "SELECT spine.messages_lookup($1, '{}', '{}', $2::text[], $3::text[])"
TEMPLATE_PUT: Final = """
    INSERT INTO spine.templates (workspace_id, id, slug, locale, bodies, required_vars, category)
    VALUES ($1, $2, $3, 'en', $4, $5, $6) ON CONFLICT DO NOTHING RETURNING *
"""
EVENT_PUT: Final = "SELECT spine.events_put($1::text[], $2::text[], $3::bytea[])"
PUT: Final = "SELECT spine.messages_put($1, $2, $3, $4::text[], $5::text[], $6::bytea[])"


@dataclass(frozen=True, slots=True)
class SystemMail:
    """What we write to owners: the slug of its template, and its text where the workspace has none of its own."""

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
"""An endpoint was disabled for its failures (webhooks.md, promise 4)."""


async def queue_system_mail(
    connection: Connection, workspace_id: str, mail: SystemMail, vars: Mapping[str, Any]
) -> str:
    """Queue the message in the running transaction and answer its id; ring `relay` and `send` after the commit.

    `env` and `organisation` are added to the variables. Raises SpineError where the message cannot be sent: mostly
    because the workspace has no e-mail account.
    """
    owner = await connection.fetchrow(OWNER, workspace_id)
    assert owner is not None
    origin = RequestOrigin(workspace_id, owner["env"], SYSTEM, ids.mint(ids.PREFIXES["request"]))
    # A test workspace reaches nobody; what it shows is what would be sent.
    email = owner["email"] if origin.env == "live" else SANDBOX_READER
    lookup = await _lookup(connection, origin, email, mail)
    request = MessageCreate(
        to=To(email=email),
        template=mail.slug,
        channels=[Channel.EMAIL],
        vars={**vars, "env": owner["env"], "organisation": owner["name"]},
    )
    made = new_message(origin, request, plan(request, lookup, Templates(), origin.env, datetime.now(UTC)))
    await connection.execute(
        PUT, workspace_id, [made.row], [made.entry], [made.event.id], [made.event.type], [made.event.body]
    )
    id: str = made.row["id"]
    return id


async def _lookup(connection: Connection, origin: RequestOrigin, email: str, mail: SystemMail) -> WorkspaceLookup:
    """What the workspace has, with the letter's template made first where there is none."""
    args = (origin.workspace_id, [email], [mail.slug])
    lookup = WorkspaceLookup(**await connection.fetchval(LOOKUP, *args))
    if not lookup.templates:
        row = await connection.fetchrow(
            TEMPLATE_PUT,
            origin.workspace_id,
            ids.mint(ids.PREFIXES["template"]),
            mail.slug,
            {"email": {"subject": mail.subject, "text": mail.text}},
            mail.vars,
            DEFAULT_CATEGORY,
        )
        if row is not None:
            event = _template_created(origin, row)
            await connection.execute(EVENT_PUT, [event.id], [event.type], [event.body])
        lookup = WorkspaceLookup(**await connection.fetchval(LOOKUP, *args))
    return lookup


def _template_created(origin: RequestOrigin, row: Any) -> NewEvent:
    id = ids.mint(ids.PREFIXES["event"])
    out = TemplateOut.model_validate({**row, "meta": row["metadata"]})
    body = event_body(
        id=id,
        type=CREATED.name,
        at=datetime.now(UTC),
        workspace_id=origin.workspace_id,
        env=origin.env,
        request_id=origin.request_id,
        actor=origin.actor,
        sequence=1,
        data=out.model_dump_json().encode(),
    )
    return NewEvent(id, CREATED.name, body)
