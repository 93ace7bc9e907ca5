"""Templates: immutable versions per slug and locale, with a body for each channel. Bodies are checked on creation."""

import re
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field, StringConstraints, model_validator
from sqlalchemy import text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import Text

from spine.kernel import store
from spine.kernel.crud import crud_router
from spine.kernel.errors import FieldError, Unprocessable
from spine.kernel.events import EventType
from spine.kernel.resource import Body, Metadata, Out, Resource, ResourceOut, TenantRow
from spine.kernel.routes import CurrentUnit, Paging, declares
from spine.kernel.store import Page
from spine.kernel.turns import Turns
from spine.notifications.provider_kinds import Channel
from spine.notifications.provider_templates import ProviderTemplates
from spine.notifications.rendering import VariableMissing, parse, parse_bodies
from spine.notifications.template_budget import TooExpensive, Unrenderable
from spine.notifications.template_vars import VariableName, Vars

SLUG: Final = re.compile(r"^[a-z0-9][a-z0-9_-]{0,63}$")
Slug = Annotated[str, StringConstraints(pattern=SLUG.pattern)]
Locale = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}(_[A-Z][a-z]{3})?(_[A-Z]{2})?$")]
Category = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Source = Annotated[str, StringConstraints(min_length=1, max_length=20_000)]
DEFAULT_CATEGORY: Final = "transactional"


class TemplateRow(TenantRow):
    __tablename__ = "templates"
    slug: Mapped[str]
    locale: Mapped[str]
    bodies: Mapped[dict[str, Any]]
    required_vars: Mapped[list[str]] = mapped_column(ARRAY(Text))
    category: Mapped[str]
    dlt: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    provider_templates: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)


class EmailBody(Body):
    """An e-mail: `html` is escaped as it is filled in."""

    subject: Annotated[str, StringConstraints(min_length=1, max_length=500)]
    text: Source
    html: Source | None = None


class Bodies(Body):
    """What is sent on each channel, in liquid."""

    whatsapp: Source | None = None
    sms: Source | None = None
    email: EmailBody | None = None

    @model_validator(mode="after")
    def _has_one(self) -> "Bodies":
        if not (self.whatsapp or self.sms or self.email):
            raise ValueError("a template needs a body for one channel at least")
        return self


class DltVariable(Body):
    """A variable as it is tagged in the registry."""

    name: VariableName
    type: Annotated[str, StringConstraints(max_length=40)]


class Dlt(Body):
    """What Indian SMS needs (providers.md 2.3)."""

    entity_id: Annotated[str, StringConstraints(max_length=40)]
    template_id: Annotated[str, StringConstraints(max_length=40)]
    header: Annotated[str, StringConstraints(max_length=11)]
    category: Literal["transactional", "service_implicit", "service_explicit", "promotional"]
    variables: Annotated[list[DltVariable], Field(max_length=100)] = []


class TemplateCreate(Body):
    slug: Slug
    locale: Locale = "en"
    bodies: Bodies
    required_vars: Annotated[list[VariableName], Field(max_length=100)] = []
    category: Category = DEFAULT_CATEGORY
    dlt: Dlt | None = None
    provider_templates: ProviderTemplates = Field(
        default=ProviderTemplates(),
        description="Templates that providers hold for this one. Their variables are required.",
    )
    metadata: Metadata = {}


class EmailBodyOut(Out):
    subject: str
    text: str
    html: str | None = None


class BodiesOut(Out):
    whatsapp: str | None = None
    sms: str | None = None
    email: EmailBodyOut | None = None


class TemplateOut(ResourceOut):
    object: str = "template"
    slug: str
    version: int = Field(description="The version of this slug and locale. A version never changes.")
    locale: str
    bodies: BodiesOut
    required_vars: list[str]
    category: str
    dlt: dict[str, Any] | None
    provider_templates: dict[str, Any] = Field(description="Templates that providers hold for this one, by kind.")


class PreviewBody(Body):
    channel: Channel
    vars: Vars = {}


class PreviewOut(BaseModel):
    """What would be sent."""

    object: str = "template_preview"
    template_id: str
    channel: Channel
    text: str
    subject: str | None
    html: str | None


class TemplatePreviewed(BaseModel):
    """A look at a template; what it showed is in its answer."""

    template_id: str
    channel: Channel


PREVIEWED = EventType("template.previewed", TemplatePreviewed, "Somebody looked at what a template would send.")
CREATED = EventType("template.created", TemplateOut, "A version of a template was made.")
TEMPLATE = Resource(
    noun="template",
    row=TemplateRow,
    create=TemplateCreate,
    update=None,
    out=TemplateOut,
    scope="notifications",
    events=(CREATED, PREVIEWED),
)

router = crud_router(TEMPLATE, "notifications", "get")


async def _check_bodies(bodies: dict[str, Any]) -> None:
    """Raise Unprocessable with an error for each body that Liquid does not accept. Others get a turn in between."""
    found: list[FieldError] = []
    turns = Turns()
    for channel, body in bodies.items():
        for name, source in (body if isinstance(body, dict) else {"": body}).items():
            try:
                parse(source, html=name == "html")
            except Unrenderable as error:
                param = f"bodies.{channel}" + (f".{name}" if name else "")
                code = error.code if isinstance(error, TooExpensive) else "template_invalid"
                found.append(FieldError(param=param, code=code, detail=str(error)))
            await turns.give()
    if found:
        raise Unprocessable(
            f"{found[0].param}: {found[0].detail}", code=found[0].code, param=found[0].param, errors=found
        )


def missing_variable(detail: str, param: str = "vars") -> Unprocessable:
    """Return the error for a variable that a template needs and the request does not give."""
    return Unprocessable(detail, code="variable_missing", param=param)


@router.post(
    "", status_code=201, openapi_extra=declares("notifications:write", CREATED), summary="Make a version of a template"
)
async def create_template(body: TemplateCreate, unit: CurrentUnit) -> TemplateOut:
    values = store.columns(body)
    values["bodies"] = body.bodies.model_dump(exclude_none=True)
    await _check_bodies(values["bodies"])
    values |= {
        "locale": body.locale,
        "category": body.category,
        "required_vars": list(dict.fromkeys([*body.required_vars, *body.provider_templates.variables()])),
        "dlt": body.dlt.model_dump() if body.dlt else None,
        "provider_templates": body.provider_templates.model_dump(exclude_none=True),
    }
    # Version numbers have no gaps: a transaction-level lock on the slug and locale makes concurrent requests wait.
    name = f"{unit.workspace_id} {body.slug} {body.locale}"
    await unit.session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})
    newest = await unit.session.scalar(
        text("SELECT max(version) FROM spine.templates WHERE workspace_id = :ws AND slug = :slug AND locale = :locale"),
        {"ws": unit.workspace_id, "slug": body.slug, "locale": body.locale},
    )
    row = await store.create(unit, TEMPLATE, version=(newest or 0) + 1, **values)
    out: TemplateOut = await store.emit_event(unit, TEMPLATE, row, "created")
    return out


@router.get(
    "",
    openapi_extra=declares("notifications:read", tool="notifications_list_templates"),
    summary="List versions of templates, newest first",
)
async def list_templates(unit: CurrentUnit, paging: Paging, slug: Slug | None = None) -> Page[TemplateOut]:
    conditions = [TemplateRow.slug == slug] if slug is not None else []
    return await store.page(unit, TEMPLATE, paging.cursor, paging.limit, *conditions, filters=slug or "")


@router.post(
    "/{id}/preview",
    openapi_extra=declares("notifications:read", PREVIEWED, tool="notifications_preview_template"),
    summary="See what a template would send on a channel",
)
async def preview_template(id: str, body: PreviewBody, unit: CurrentUnit) -> PreviewOut:
    row: TemplateRow = await store.get(unit, TEMPLATE, id)
    if body.channel not in row.bodies:
        raise Unprocessable(
            f"this template has no body for {body.channel}", code="template_body_missing", param="channel"
        )
    absent = [name for name in row.required_vars if name not in body.vars]
    if absent:
        raise missing_variable(f"this template needs the variable {absent[0]}", f"vars.{absent[0]}")
    try:
        parsed = await parse_bodies({body.channel: row.bodies[body.channel]})
        content = parsed.content(body.channel, body.vars, unit.platform.http)
    except VariableMissing as error:
        raise missing_variable(str(error)) from error
    except Unrenderable as error:
        raise Unprocessable(str(error), code=error.code, param="vars") from error
    unit.emit(PREVIEWED, TemplatePreviewed(template_id=row.id, channel=body.channel), sequence=row.version)
    return PreviewOut(
        template_id=row.id, channel=body.channel, text=content.text, subject=content.subject, html=content.html
    )
