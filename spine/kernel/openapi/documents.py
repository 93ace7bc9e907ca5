"""The documents: that of the whole suite, and one for each product, cut out of it so that both say the same."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from spine import __version__
from spine.kernel.errors import Error
from spine.kernel.events import Catalogue
from spine.kernel.openapi import operations, schemas, shared
from spine.kernel.openapi.webhooks import Event, event_products, webhook_item
from spine.kernel.routes import IfMatch, Paging
from spine.kernel.store import Page

SUITE = "spine"
"""The name of the document of all products."""


@dataclass(frozen=True, slots=True)
class Texts:
    """What the documents say and the code does not: written by hand."""

    titles: Mapping[str, tuple[str, str]]
    """Title and summary of each document, by the product's name."""
    tags: Mapping[str, str]
    """The description of each tag."""
    examples: Mapping[str, Any]
    """Request bodies, by method and path ("POST /v1/events")."""
    schema_names: Mapping[type[Any], str]
    """Public names of models that share a class name."""


def build_documents(
    app: FastAPI,
    catalogue: Catalogue,
    routers: Iterable[APIRouter],
    products: Mapping[str, tuple[str, ...]],
    texts: Texts,
) -> dict[str, dict[str, Any]]:
    """Return the document of the suite and those of the products, by name.

    `products` are the path prefixes of each product.
    """
    suite = _build_suite(app, catalogue, texts)
    owners = event_products(catalogue, routers)
    documents = {SUITE: _extract(suite, ("/",), set(owners), SUITE, texts)}
    for name, prefixes in products.items():
        own = {event for event, found in owners.items() if name in found}
        documents[name] = _extract(suite, prefixes, own, name, texts)
    return documents


def _carriers(catalogue: Catalogue) -> list[APIRoute]:
    """Routes that are not served. Through them FastAPI names the schemas of events and common parts with all others."""

    async def carry(paging: Paging, if_match: IfMatch = None) -> None: ...

    models: dict[str, Any] = {event.name: event.data for event in catalogue.types.values()}
    models |= {"Error": Error, "Event": Event, "Page": Page[Any]}
    return [APIRoute(f"/{name}", carry, response_model=model, name=name) for name, model in models.items()]


def _build_suite(app: FastAPI, catalogue: Catalogue, texts: Texts) -> dict[str, Any]:
    document = get_openapi(
        title="", version=__version__, openapi_version="3.1.0", routes=app.routes, webhooks=_carriers(catalogue)
    )
    document = schemas.renamed(
        document, schemas.public_names(list(document["components"]["schemas"]), texts.schema_names)
    )
    document = schemas.renamed(document, schemas.page_names(document["components"]["schemas"]))
    components, carried = document["components"], document.pop("webhooks")
    for schema in components["schemas"].values():
        schemas.without_titles(schema)
        schemas.fix_object_names(schema)
    schemas.share_page_envelope(components["schemas"])
    components |= {
        "parameters": _common_parameters(carried["/Page"]["get"]["parameters"]),
        "headers": shared.HEADERS,
        "responses": shared.problem_responses(),
        "securitySchemes": shared.SECURITY_SCHEMES,
    }
    operations.name_operations(document["paths"])
    for path, method, operation in operations.operations(document["paths"]):
        example = texts.examples.get(f"{method.upper()} {path}")
        operations.complete_operation(path, method, operation, components["parameters"], example)
    operations.add_links(document["paths"], components["schemas"])
    document["webhooks"] = {
        name: webhook_item(event, _response_schema(carried[f"/{name}"]["get"]))
        for name, event in sorted(catalogue.types.items())
    }
    return document


def _response_schema(operation: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = operation["responses"]["200"]["content"]["application/json"]["schema"]
    return schema


def _common_parameters(parameters: list[dict[str, Any]]) -> dict[str, Any]:
    common: dict[str, Any] = {"IdempotencyKey": shared.IDEMPOTENCY_KEY, **shared.WEBHOOK_PARAMETERS}
    for parameter in parameters:
        schemas.without_titles(parameter["schema"])
        common[shared.PARAMETER_NAMES[parameter["name"]]] = parameter
    return common


def _extract(
    suite: dict[str, Any], prefixes: tuple[str, ...], events: set[str], name: str, texts: Texts
) -> dict[str, Any]:
    """Return the document of the paths under `prefixes` and of these events, with the components that they refer to."""
    paths = {path: item for path, item in sorted(suite["paths"].items()) if path.startswith(prefixes)}
    webhooks = {event: item for event, item in suite["webhooks"].items() if event in events}
    title, summary = texts.titles.get(name, (f"Spine {name.capitalize()}", f"The operations of {name}."))
    return {
        "openapi": suite["openapi"],
        "info": {
            "title": title,
            "version": suite["info"]["version"],
            "summary": summary,
            "description": shared.INTRODUCTION,
        },
        "servers": shared.SERVERS,
        "security": [{"bearer": []}],
        "tags": _tags({**paths, **webhooks}, texts),
        "paths": paths,
        "webhooks": webhooks,
        "components": schemas.used_components({"paths": paths, "webhooks": webhooks}, suite["components"]),
    }


def _tags(items: Mapping[str, Any], texts: Texts) -> list[dict[str, str]]:
    """Return the tags that these operations have, in the order of the texts; those without a text come last."""
    used = {tag for _, _, operation in operations.operations(items) for tag in operation.get("tags", ())}
    ordered = [tag for tag in texts.tags if tag in used] + sorted(used - texts.tags.keys())
    names = {tag: tag.replace("_", " ").capitalize() for tag in ordered}
    return [
        {"name": tag, "x-displayName": names[tag], "description": texts.tags.get(tag, f"{names[tag]}.")}
        for tag in ordered
    ]
