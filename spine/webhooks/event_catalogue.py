"""The event catalogue: every event type with its JSON Schema and an example, Spine's own and registered ones."""

from typing import Any, Final

from pydantic import BaseModel, Field
from sqlalchemy import text

from spine.kernel.events import Catalogue
from spine.kernel.routes import CurrentUnit, declares, new_router
from spine.webhooks.schema_examples import ExampleTooLarge, example


class CatalogueEntry(BaseModel):
    """One event type: when it fires, and what its data looks like."""

    name: str
    version: int
    description: str
    schema_: dict[str, Any] | None = Field(
        alias="schema", description="JSON Schema of `data`; null where the caller registered none."
    )
    example: Any


class CatalogueOut(BaseModel):
    data: list[CatalogueEntry]


router = new_router("/v1/events", "events")

_REGISTERED: Final = text(
    "SELECT name, description, schema FROM spine.event_types WHERE workspace_id = :ws AND status = 'active' ORDER BY name"
)


@router.get(
    "/types", openapi_extra=declares("events:read"), summary="The catalogue: every event type, with schema and example"
)
async def list_event_catalogue(unit: CurrentUnit) -> CatalogueOut:
    rows = await unit.session.execute(_REGISTERED, {"ws": unit.workspace_id})
    registered = [
        CatalogueEntry(
            name=row.name,
            version=1,
            description=row.description,
            schema=row.schema,
            example=_example_or_none(row.schema or {"type": "object"}),
        )
        for row in rows
    ]
    return CatalogueOut(data=[*_own_entries(unit.platform.catalogue), *registered])


def _example_or_none(schema: dict[str, Any]) -> Any:
    try:
        return example(schema)
    except ExampleTooLarge:
        return None


def _own_entries(catalogue: Catalogue) -> list[CatalogueEntry]:
    entries = []
    for event in sorted(catalogue.types.values(), key=lambda event: event.name):
        schema = event.data.model_json_schema(mode="serialization")
        entries.append(
            CatalogueEntry(
                name=event.name, version=event.version, description=event.text, schema=schema, example=example(schema)
            )
        )
    return entries
