"""OpenAPI 3.1 documents, built from the routes, their models and the catalogue of events (P-22 to P-24)."""

import json
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema

from spine import __version__
from spine.kernel import ids
from spine.kernel.errors import Error
from spine.kernel.events import Actor, Catalogue, EventType
from spine.kernel.idempotency import HEADER
from spine.kernel.resource import plural
from spine.kernel.responses import PROBLEM
from spine.kernel.store import Page

_REF: Final = "#/components/schemas/"
_MUTATING: Final = {"post", "put", "patch", "delete"}
_PROBLEMS: Final = {
    "400": "The Idempotency-Key, the cursor or a header is missing or malformed.",
    "401": "No valid key was given.",
    "403": "The key lacks the scope.",
    "404": "There is no such thing in this workspace.",
    "409": "It conflicts with the present state, or the Idempotency-Key was used for something else.",
    "413": "The body is too large.",
    "422": "The request does not fit its schema, or breaks a rule.",
    "429": "Too many requests; Retry-After says when to go on.",
    "408": "The request did not arrive in time.",
    "414": "The URL is too long.",
    "431": "The head of the request is too large.",
    "500": "Our fault; the same request with the same Idempotency-Key is safe to send again.",
    "503": "Out of reach for a moment; the same request with the same Idempotency-Key is safe to send again.",
}
_INTRODUCTION: Final = (
    "Bearer keys, prefixed ULIDs, cursors that never skip or repeat, an Idempotency-Key on every mutation, signed webhooks. "
    "Every error is an RFC 9457 problem."
)


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


def build_document(
    app: FastAPI,
    catalogue: Catalogue,
    prefixes: Iterable[str] = ("/",),
    schema_names: Mapping[type[BaseModel], str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return the document of the paths under `prefixes`, with the webhooks of the event families that they emit.

    `schema_names` are the public names of models that share a class name. FastAPI would name those by their modules.
    """
    document = get_openapi(
        title="Spine",
        version=__version__,
        openapi_version="3.1.0",
        summary="Webhooks and notifications, none lost.",
        description=_INTRODUCTION,
        routes=app.routes,
    )
    document["paths"] = {path: item for path, item in document["paths"].items() if path.startswith(tuple(prefixes))}
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas |= _schemas([Error, Event, Page[Any]])
    schemas["Page"] = schemas.pop("Page_Any_", None) or schemas["Page"]
    document["webhooks"] = _webhooks(_emitted_by(document["paths"], catalogue), schemas)
    document["components"]["responses"] = _problem_responses()
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "sk_test_… or sk_live_…"}
    }
    document["security"] = [{"bearer": []}]
    for path, item in document["paths"].items():
        for method, operation in item.items():
            _complete_operation(path, operation, method in _MUTATING)
    _add_links(document["paths"], schemas)
    document["components"]["schemas"] = _referenced_schemas(document, schemas)
    document.pop("tags", None)
    return _with_public_names(document, schema_names)


def _problem_responses() -> dict[str, Any]:
    return {
        f"Problem{status}": {
            "description": description,
            "content": {PROBLEM: {"schema": {"$ref": _REF + "Error"}}},
        }
        for status, description in _PROBLEMS.items()
    }


def _with_public_names(document: dict[str, Any], schema_names: Mapping[type[BaseModel], str]) -> dict[str, Any]:
    text = json.dumps(document)
    for model, name in schema_names.items():
        by_module = f"{model.__module__}.{model.__qualname__}".replace(".", "__")
        text = text.replace(f'"{_REF}{by_module}"', f'"{_REF}{name}"').replace(f'"{by_module}":', f'"{name}":')
    renamed: dict[str, Any] = json.loads(text)
    return renamed


def _schemas(models: list[Any]) -> dict[str, Any]:
    _, definitions = models_json_schema([(model, "serialization") for model in models], ref_template=_REF + "{model}")
    found: dict[str, Any] = definitions.get("$defs", {})
    return {re.sub(r"[^A-Za-z0-9_]", "_", name): schema for name, schema in found.items()}


def _emitted_by(paths: dict[str, Any], catalogue: Catalogue) -> list[EventType]:
    """The types of the families that these operations emit: a family that one of them emits belongs to its product.

    A type that products share is in the documents of those that emit it, and tells nothing of its family.
    """
    names = {name for item in paths.values() for operation in item.values() for name in operation.get("x-events", ())}
    families = {name.partition(".")[0] for name in names - catalogue.shared}
    own = catalogue.types.keys() - catalogue.shared
    found = names & catalogue.shared | {name for name in own if name.partition(".")[0] in families}
    return [event for event in catalogue.types.values() if event.name in found]


def _webhooks(chosen: list[EventType], schemas: dict[str, Any]) -> dict[str, Any]:
    models = {event.data.__qualname__: event.data for event in chosen}
    for name, schema in _schemas([models[name] for name in sorted(models)]).items():
        schemas.setdefault(name, schema)
    return {
        event.name: {
            "post": {
                "summary": event.text,
                "operationId": f"webhook_{event.name}",
                "security": [],
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {
                            "schema": {
                                "allOf": [
                                    {"$ref": _REF + "Event"},
                                    {
                                        "properties": {
                                            "type": {"const": event.name},
                                            "data": {"$ref": _REF + event.data.__name__},
                                        }
                                    },
                                ]
                            }
                        }
                    },
                },
                "responses": {
                    "2XX": {"description": "Any 2xx within 15 s: delivered. Anything else is retried on the schedule."}
                },
            }
        }
        for event in sorted(chosen, key=lambda event: event.name)
    }


def _complete_operation(path: str, operation: dict[str, Any], mutating: bool) -> None:
    operation.pop("x-listed-at", None)  # read by the route, not part of the document
    parameters = operation.setdefault("parameters", [])
    responses = operation["responses"]
    public = operation.get("security") == []
    if mutating and not public:
        parameters.append(
            {
                "name": HEADER,
                "in": "header",
                "required": True,
                "description": "Same key and same request: the first answer again, for 24 hours. Same key, another request: 409.",
                "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[\x21-\x7e]+$"},
            }
        )
    if "itemSchema" in (stream := responses.get("200", {}).get("content", {}).get("text/event-stream", {})):
        stream.clear()  # FastAPI describes its items as OpenAPI 3.2 does; in 3.1 a stream is a text
        stream["schema"] = {"type": "string"}
    responses.pop("422", None)
    responses |= {status: {"$ref": f"#/components/responses/Problem{status}"} for status in _PROBLEMS}
    for parameter in parameters:
        if parameter["in"] == "path":
            _add_id_pattern(path, parameter)
            parameter["description"] = parameter.get(
                "description", "Another kind's id, or another workspace's, is not found."
            )
    if not parameters:
        operation.pop("parameters")


_PREFIX_BY_LIST: Final = {plural(noun): prefix for noun, prefix in ids.PREFIXES.items()} | {
    "dead_letters": ids.PREFIXES["delivery"],
    "webhook-keys": ids.PREFIXES["webhook_endpoint"],
    "inbound": ids.PREFIXES["provider_account"],
    "queues": ids.PREFIXES["user"],
    "/works/v1/templates": ids.PREFIXES["project_template"],
}
"""The prefix of the ids in a list, by the name of the list or, where products have lists of one name, by its path."""


def _add_id_pattern(path: str, parameter: dict[str, Any]) -> None:
    """Add the pattern of an id in a path, by the name of the list before it. The route does not validate it: it returns 404."""
    before = re.search(r"^(.*/([^/{}]+))/\{" + parameter["name"] + r"\}", path)
    of_list = (_PREFIX_BY_LIST.get(before[1]) or _PREFIX_BY_LIST.get(before[2])) if before else None
    prefix = of_list or ids.PREFIXES.get(parameter["name"].removesuffix("_id"))
    if prefix is not None and parameter["name"].endswith("id"):
        parameter["schema"] = {**parameter["schema"], "pattern": ids.pattern(prefix)}


def _add_links(paths: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Add links to each operation that creates an object: to every operation on one object of the same list."""
    for path, item in paths.items():
        created = item.get("post", {}).get("responses", {}).get("201")
        if "{" in path or created is None:
            continue
        schema_name = created["content"]["application/json"]["schema"].get("$ref", "").removeprefix(_REF)
        links = {
            operation["operationId"]: {
                "operationId": operation["operationId"],
                "parameters": {"id": "$response.body#/id"},
            }
            for below, others in paths.items()
            if below.startswith(path + "/{id}")
            for operation in others.values()
        }
        if links and "id" in schemas[schema_name]["properties"]:
            created["links"] = links


def _referenced_schemas(document: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    wanted = {"Error", "Event", "Page"}
    queue = [json.dumps({key: value for key, value in document.items() if key != "components"})]
    queue += [json.dumps(schemas[name]) for name in wanted]
    while queue:
        for name in re.findall(re.escape(_REF) + r"([A-Za-z0-9_.\-]+)", queue.pop()):
            if name not in wanted:
                wanted.add(name)
                queue.append(json.dumps(schemas[name]))
    return {name: schemas[name] for name in sorted(wanted)}
