"""Notices: messages that products send by themselves, such as a reminder. Each has a built-in text.

The workspace's own template is used if it has one with the notice's slug. Else one is created from the built-in text, so
that the workspace sees it and can write a version of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from spine.kernel import store
from spine.kernel.errors import Conflict, TooManyRequests, Unprocessable
from spine.kernel.unit_of_work import UnitOfWork
from spine.notifications.message_request import MessageCreate
from spine.notifications.send_message import look_up, send_message
from spine.notifications.templates import DEFAULT_CATEGORY, TEMPLATE


@dataclass(frozen=True, slots=True)
class Notice:
    """A kind of notice: the slug of its template, and the built-in subject and text with these variables."""

    slug: str
    subject: str
    text: str
    vars: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SentNotice:
    """The message that a notice became, or the code and the reason why it cannot be sent."""

    message_id: str | None
    refused: str | None = None
    reason: str | None = None


async def send_notice(
    unit: UnitOfWork,
    notice: Notice,
    contact_id: str,
    vars: Mapping[str, Any],
    *,
    send_at: datetime | None = None,
    metadata: Mapping[str, str] | None = None,
) -> SentNotice:
    """Queue the notice to a contact in the unit's transaction.

    A notice that cannot be sent (the contact has no address, the workspace's own template does not fit, its quota is used
    up) is no error of the work that it tells of: the result says why.
    """
    request = MessageCreate.model_construct(
        contact_id=contact_id,
        template=notice.slug,
        vars=dict(vars),
        send_at=send_at,
        metadata=dict(metadata or {}),
    )
    lookup = await look_up(unit, request)
    if not lookup.templates:
        await _create_template(unit, notice)
        lookup = await look_up(unit, request)
    try:
        return SentNotice(await send_message(unit, request, lookup))
    except (Unprocessable, TooManyRequests) as error:
        return SentNotice(None, error.code, error.detail)


async def _create_template(unit: UnitOfWork, notice: Notice) -> None:
    bodies = {
        "whatsapp": notice.text,
        "sms": notice.text,
        "email": {"subject": notice.subject, "text": notice.text},
    }
    try:
        async with unit.session.begin_nested():
            row = await store.create(
                unit, TEMPLATE, slug=notice.slug, locale="en", version=1, bodies=bodies, dlt=None,
                required_vars=list(notice.vars), category=DEFAULT_CATEGORY,
            )  # fmt: skip
    except Conflict:
        return  # a transaction beside this one has just created it
    await store.emit_event(unit, TEMPLATE, row, "created")
