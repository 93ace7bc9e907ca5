"""`/f/{slug}`: the support form (requirements T-13 to T-15). A submission is a ticket with an owner and a state when it is answered."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fastapi import Request, Response
from fastapi.responses import RedirectResponse

from products.pages import links, submissions
from products.pages.framing import Framing, cors_headers
from products.pages.links import Link
from products.pages.page_routes import PUBLIC, page_router
from products.pages.render_tokens import Kind
from products.pages.rendering import Look, html, protections
from products.pages.sites import Site, no_page, require_slug
from products.pages.submissions import Returned, carry_out, issue_token, read_render, returned
from products.pages.submitted_fields import read_fields, text_of
from products.pages.visitor import Errors, Visitor, matched_contact, read_text, read_visitor
from products.tickets.forms import find_form
from products.tickets.ticket_models import Source
from products.tickets.tickets import create_ticket
from spine.kernel.errors import SpineError
from spine.kernel.platform import Platform
from spine.kernel.unit_of_work import UnitOfWork

_VALUES: Final = ("name", "email", "phone", "topic", "subject", "message")
_MAX_SUBJECT_CHARS: Final = 300
_MAX_MESSAGE_CHARS: Final = 10_000
_MAX_TOPIC_CHARS: Final = 64

router = page_router()


@dataclass(frozen=True, slots=True)
class FormSite(Site):
    """A support form: its id, its heading and its topics."""

    id: str
    title: str
    topics: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Request:
    """What the visitor writes, checked."""

    topic: str | None
    subject: str
    message: str


async def find_site(platform: Platform, slug: str) -> FormSite:
    """Return the active form with this slug. Raises NotFound."""
    require_slug(slug)
    form = await find_form(platform.pool, slug)
    if form is None:
        raise no_page()
    return FormSite(
        Kind.FORM,
        slug,
        form.workspace_id,
        form.organisation_id,
        form.env,
        Look.of(form.brand.model_dump()),
        Framing(tuple(origin.lower() for origin in form.allowed_origins)),
        form.id,
        form.title,
        tuple(form.topics),
    )


@router.get("/f/{slug}", openapi_extra=PUBLIC)
async def support_form(slug: str, request: Request) -> Response:
    platform: Platform = request.app.state.platform
    await submissions.limit_views(request, platform)
    return _show(request, await find_site(platform, slug), dict.fromkeys(_VALUES, ""))


@router.post("/f/{slug}", openapi_extra=PUBLIC)
async def submit_form(slug: str, request: Request) -> Response:
    platform: Platform = request.app.state.platform
    await submissions.limit_submissions(request, platform)
    fields = await read_fields(request)
    site = await find_site(platform, slug)
    values = {name: text_of(fields, name) for name in _VALUES}
    errors: Errors = {}
    try:
        render = read_render(request, platform, site, fields)
        visitor = read_visitor(fields, errors)
        asked = _read(fields, errors)
        if errors:
            return _show(request, site, values, Returned(422, errors))
        submitted = values | {"phone": visitor.phone, "email": visitor.email}
        path = await carry_out(
            request, platform, site, render, submitted, lambda unit: _create(unit, site, visitor, asked)
        )
    except SpineError as error:
        return _show(request, site, values, returned(error, fields))
    headers = {**protections(), "Cache-Control": "no-store", **cors_headers(request, site.framing)}
    return RedirectResponse(path, 303, headers)


def _read(fields: Mapping[str, str], errors: Errors) -> _Request:
    topic = text_of(fields, "topic")[:_MAX_TOPIC_CHARS] or None
    subject = read_text(fields, "subject", "Enter a subject.", _MAX_SUBJECT_CHARS, errors)
    message = read_text(fields, "message", "Enter your message.", _MAX_MESSAGE_CHARS, errors)
    return _Request(topic, subject, message)


async def _create(unit: UnitOfWork, site: FormSite, visitor: Visitor, asked: _Request) -> str:
    """Create the ticket. A topic that the form does not (or no longer) have takes the default route and stands in the metadata:
    a visitor can neither lose a request over it nor pick a route that the form does not offer.
    """
    contact = await matched_contact(unit, visitor)
    offered = asked.topic in site.topics
    made = await create_ticket(
        unit,
        contact_id=contact.id,
        subject=asked.subject,
        topic=asked.topic if offered else None,
        source=Source.FORM,
        body=asked.message,
        form_id=site.id,
        metadata={} if offered or asked.topic is None else {"topic_given": asked.topic},
    )
    link = Link(site.workspace_id, site.organisation_id, site.env, made.id)
    return f"{site.path}/{links.seal(unit.platform.vault, site.kind, site.slug, link)}"


def _show(request: Request, site: FormSite, values: Mapping[str, str], back: Returned | None = None) -> Response:
    platform: Platform = request.app.state.platform
    back = back or Returned(200, {})
    return html(
        "form.html",
        site.look,
        site.framing,
        status=back.status,
        headers={**back.headers, **cors_headers(request, site.framing)},
        title=site.title,
        test=site.env == "test",
        path=site.path,
        token=back.token or issue_token(platform, site),
        values=values,
        errors=back.errors,
        problem=back.problem,
        topics=site.topics,
    )
