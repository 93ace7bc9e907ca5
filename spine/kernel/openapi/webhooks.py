"""The `webhooks` of a document: one item for each event type, and the product that each type belongs to."""

from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from spine.kernel.events import Actor, Catalogue, EventType
from spine.kernel.openapi import shared
from spine.kernel.openapi.operations import product_of
from spine.kernel.openapi.schemas import REF
from spine.kernel.routes import ApiRoute, ResourceRouter


class Event(BaseModel):
    """What a webhook carries, signed over these very bytes (Standard Webhooks)."""

    id: str = Field(description="Equal to the webhook-id header; constant over retries and replays.")
    type: str
    timestamp: str = Field(description="When it happened, RFC 3339 in UTC.", json_schema_extra={"format": "date-time"})
    workspace_id: str
    env: str
    api_version: str
    request_id: str
    actor: Actor
    sequence: int = Field(description="Rises with each event of one object; deliveries may overtake each other.")
    data: dict[str, Any]


def webhook_item(event: EventType, data: dict[str, Any]) -> dict[str, Any]:
    """Return the item of an event type. `data` is the schema of its data."""
    own = {"type": "object", "properties": {"type": {"type": "string", "const": event.name}, "data": data}}
    return {
        "post": {
            "summary": event.text,
            "operationId": f"on_{event.name.replace('.', '_')}",
            "tags": ["webhooks"],
            "security": [],
            "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in shared.WEBHOOK_PARAMETERS],
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": {"allOf": [{"$ref": f"{REF}Event"}, own]}}},
            },
            "responses": {
                "2XX": {"description": "Any 2xx within 15 s: delivered. Anything else is retried on the schedule."}
            },
        }
    }


def event_products(catalogue: Catalogue, routers: Iterable[APIRouter]) -> dict[str, set[str]]:
    """Return the products in whose documents each event type stands.

    These are the products of the resources that declare it: mostly one. Other types belong to the product of their
    family, or else of the first operation that emits them. Raises ValueError for a type without a product.
    """
    declared: dict[str, set[str]] = {}
    emitted: dict[str, str] = {}
    for router in routers:
        resource = router.resource if isinstance(router, ResourceRouter) else None
        for event in resource.events if resource else ():
            declared.setdefault(event.name, set()).add(product_of(router.prefix))
        for route in router.routes:
            if isinstance(route, ApiRoute):
                for name in (route.openapi_extra or {}).get("x-events", ()):
                    emitted.setdefault(name, product_of(route.path))
    families = {_family(name): {product} for name, product in emitted.items()}
    families |= {_family(name): products for name, products in declared.items() if len(products) == 1}
    products = {name: declared.get(name) or families.get(_family(name), set()) for name in catalogue.types}
    orphans = sorted(name for name, found in products.items() if not found)
    if orphans:
        raise ValueError(f"no operation emits {', '.join(orphans)}; list them in the events of a resource")
    return products


def _family(name: str) -> str:
    return name.partition(".")[0]
