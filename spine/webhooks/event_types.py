"""Event types that callers register, each with an optional JSON Schema for its data."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, StringConstraints, field_validator
from sqlalchemy import text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import Text

from spine.kernel import store
from spine.kernel.crud import crud_router
from spine.kernel.errors import Conflict
from spine.kernel.events import EventType
from spine.kernel.resource import Body, Metadata, Resource, ResourceOut, TenantRow
from spine.kernel.routes import CurrentUnit, declares
from spine.kernel.unit_of_work import UnitOfWork
from spine.webhooks.registered_types import reserved_type_error
from spine.webhooks.schemas import validate_schema

TypeName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z][a-z0-9_]*(\.[a-z0-9_]+)+$", max_length=128),
    Field(description="Dotted lower-case words, outside the suite's own families."),
]


class TypeStatus(StrEnum):
    """Events of an archived type are refused."""

    ACTIVE = "active"
    ARCHIVED = "archived"


class EventTypeRow(TenantRow):
    __tablename__ = "event_types"
    name: Mapped[str]
    description: Mapped[str] = mapped_column(Text, default="")
    schema: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    status: Mapped[str] = mapped_column(Text, default=TypeStatus.ACTIVE)

    constraint_errors = {  # read-only
        "event_types_workspace_id_name_key": lambda: Conflict(
            "an event type of this name exists", code="event_type_exists", param="name"
        ),
    }


class EventTypeCreate(Body):
    name: TypeName
    description: Annotated[str, StringConstraints(max_length=1000)] = ""
    schema_: dict[str, Any] | None = Field(
        default=None,
        alias="schema",
        description="A JSON Schema (2020-12); references stay inside it, patterns have no look-around.",
    )
    metadata: Metadata = {}

    @field_validator("schema_")
    @classmethod
    def _validate_schema(cls, schema: dict[str, Any] | None) -> dict[str, Any] | None:
        return None if schema is None else validate_schema(schema)


class EventTypeOut(ResourceOut):
    object: str = "event_type"
    name: str
    description: str
    schema_: dict[str, Any] | None = Field(alias="schema")
    status: TypeStatus


CREATED = EventType("event_type.created", EventTypeOut, "An event type was registered.")
ARCHIVED = EventType(
    "event_type.archived", EventTypeOut, "An event type was archived; its events are refused from now on."
)
EVENT_TYPE = Resource(
    noun="event_type",
    row=EventTypeRow,
    create=EventTypeCreate,
    update=None,
    out=EventTypeOut,
    scope="events",
    events=(CREATED, ARCHIVED),
    states={TypeStatus.ACTIVE: frozenset({TypeStatus.ARCHIVED}), TypeStatus.ARCHIVED: frozenset()},
)

router = crud_router(EVENT_TYPE, "", "get", "list")


async def _increment_types_version(unit: UnitOfWork) -> None:
    await unit.session.execute(
        text("UPDATE spine.workspaces SET event_types_version = event_types_version + 1 WHERE workspace_id = :ws"),
        {"ws": unit.workspace_id},
    )


@router.post(
    "", status_code=201, openapi_extra=declares("events:write", CREATED), summary="Register an event type of your own"
)
async def create_event_type(body: EventTypeCreate, unit: CurrentUnit) -> EventTypeOut:
    if unit.platform.catalogue.is_reserved(body.name):
        raise reserved_type_error(body.name, "name")
    row = await store.create(
        unit, EVENT_TYPE, name=body.name, description=body.description, schema=body.schema_, meta=body.metadata
    )
    await _increment_types_version(unit)
    out: EventTypeOut = await store.emit_event(unit, EVENT_TYPE, row, "created")
    return out


@router.post("/{id}/archive", openapi_extra=declares("events:write", ARCHIVED), summary="Archive an event type")
async def archive_event_type(id: str, unit: CurrentUnit) -> EventTypeOut:
    row = await store.transition(unit, EVENT_TYPE, id, TypeStatus.ARCHIVED)
    await _increment_types_version(unit)
    out: EventTypeOut = await store.emit_event(unit, EVENT_TYPE, row, "archived")
    return out
