"""The OpenAPI documents are valid, consistent with each other and with the code."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import jsonschema
import pytest
from fastapi.routing import APIRoute
from openapi_spec_validator import OpenAPIV31SpecValidator

from products.app import app
from products.catalogue import CATALOGUE, PRODUCTS, RESOURCES, ROUTERS
from products.openapi import DIRECTORY, drifted
from products.reference_texts import EXAMPLES, TAGS, TITLES
from spine.kernel.ids import PREFIXES
from spine.kernel.openapi.operations import product_of
from spine.kernel.routes import ResourceRouter
from tests.contract.specification import OPERATIONS, SPINE, Operation, operations, read

NAMES = sorted(path.stem for path in DIRECTORY.glob("*.json"))
KEYLESS = re.compile(r"^/(v1/signup(/confirm)?|notifications/v1/inbound/.+|f/.+|b/.+)$")
"""Mutations that carry their own deduplication (X18, X21)."""
UNDOCUMENTED = {
    "/livez",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/v1/openapi.json",
    "/{product}/v1/openapi.json",
    "/mcp",
    "/mcp/",
    "/.well-known/oauth-protected-resource",
    "/.well-known/oauth-protected-resource/mcp",
    "/docs",
    "/docs/{product}",
    "/docs/assets/{name}",
    "/b/{slug}",
    "/b/{slug}/{link}",
    "/b/{slug}/{link}/appointment.ics",
    "/b/{slug}/{link}/cancel",
    "/b/{slug}/{link}/move",
    "/f/{slug}",
    "/f/{slug}/{link}",
    "/pages/page.css",
    "/pages/frame.js",
    "/embed.js",
}
"""Routes outside the public specification: health, hosted pages, the specification itself, also as
pages, and MCP, which describes itself (P-26)."""
EMITTED_BY_WORKERS = {
    "appointment.reminder_sent",
    "call_session.abandoned",
    "delivery.dead_lettered",
    "enrollment.completed",
    "invoice.drafted",
    "quota.threshold",
    "replay.completed",
    "sequence.step_executed",
    "task.overdue",
    "ticket.sla_breached",
    "waitlist.expired",
    "waitlist.offered",
}
"""Events that no operation of the API emits."""


def routes(of: Iterable[Any]) -> Iterator[APIRoute]:
    """Yield every route, including those of included routers. Raises an error for an unknown kind of route."""
    for route in of:
        if isinstance(route, APIRoute):
            yield route
        else:
            yield from routes(route.original_router.routes)


def test_committed_documents_are_current() -> None:
    """The committed documents are what `make openapi` writes (P-23)."""
    assert drifted() == []


@pytest.mark.parametrize("name", NAMES)
def test_a_document_is_valid_openapi(name: str) -> None:
    """Each document is valid OpenAPI 3.1, and every reference has a target."""
    document = read(name)
    OpenAPIV31SpecValidator(document).validate()
    assert document["openapi"].startswith("3.1")
    text = json.dumps(document)
    for kind, target in set(re.findall(r'"#/components/(\w+)/([^"]+)"', text)):
        assert target in document["components"][kind]
    assert "HTTPValidationError" not in text


@pytest.mark.parametrize("name", NAMES)
def test_a_document_has_only_the_components_that_it_uses(name: str) -> None:
    """Each document is complete in itself and carries nothing of other products (P-24)."""
    document = read(name)
    components = document["components"]
    used: set[tuple[str, str]] = {("securitySchemes", scheme) for need in document["security"] for scheme in need}
    queue = [json.dumps([document["paths"], document["webhooks"]])]
    while queue:
        for found in set(re.findall(r'"#/components/(\w+)/([^"]+)"', queue.pop())) - used:
            used.add(found)
            queue.append(json.dumps(components[found[0]][found[1]]))
    assert used == {(kind, key) for kind, found in components.items() for key in found}
    assert "$ref" not in re.sub(r'"\$ref": "#/components/', "", json.dumps(document))


def test_a_component_is_the_same_in_every_document() -> None:
    """Components are byte-identical wherever they stand: errors, pages, events, headers, parameters, security (P-24)."""
    texts: dict[tuple[str, str], set[bytes]] = {}
    for name in NAMES:
        for kind, found in read(name)["components"].items():
            for key, component in found.items():
                text = json.dumps(component, sort_keys=True).encode()
                texts.setdefault((kind, key), set()).add(hashlib.sha256(text).digest())
    assert [key for key, hashes in texts.items() if len(hashes) > 1] == []


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_once_is_in_every_document(name: str) -> None:
    """Auth, errors, pagination, idempotency and event envelope are in every document, with one text about them (P-24)."""
    document = read(name)
    components = document["components"]
    assert {"Error", "Page", "Event", "FieldError", "Actor"} <= components["schemas"].keys()
    assert components["parameters"].keys() >= {"IdempotencyKey", "Cursor", "Limit", "WebhookSignature"}
    assert components["headers"].keys() >= SPINE["components"]["headers"].keys() - {"Location"}  # of creations only
    assert components["headers"].items() <= SPINE["components"]["headers"].items()
    assert components["responses"] == SPINE["components"]["responses"]
    assert components["securitySchemes"] == {"bearer": SPINE["components"]["securitySchemes"]["bearer"]}
    for section in ("servers", "security", "openapi"):
        assert document[section] == SPINE[section]
    assert document["info"]["description"] == SPINE["info"]["description"]
    assert document["info"]["version"] == SPINE["info"]["version"]


@pytest.mark.parametrize("name", NAMES)
def test_every_tag_is_described(name: str) -> None:
    """The tags of a document are those of its operations, each with a sentence of its own; so is its title."""
    document = read(name)
    assert (document["info"]["title"], document["info"]["summary"]) == TITLES[name]
    items = [*document["paths"].values(), *document["webhooks"].values()]
    used = {tag for item in items for operation in item.values() for tag in operation["tags"]}
    assert {tag["name"] for tag in document["tags"]} == used
    assert all(tag["description"] == TAGS[tag["name"]] for tag in document["tags"])


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_valid(name: str) -> None:
    """Every example of a request body fits the schema beside it."""
    document = read(name)
    for operation in operations(document):
        content = operation.spec.get("requestBody", {}).get("content", {}).get("application/json", {})
        for given in content.get("examples", {}).values():
            schema = {**content["schema"], "components": document["components"]}
            jsonschema.Draft202012Validator(schema).validate(given["value"])


def test_every_printed_body_belongs_to_an_operation() -> None:
    """No example is written for an operation that does not exist."""
    shown = {
        str(operation): given["value"]
        for operation in OPERATIONS
        for content in operation.spec.get("requestBody", {}).get("content", {}).values()
        for given in content.get("examples", {}).values()
    }
    assert shown == EXAMPLES


@pytest.mark.parametrize("name", CATALOGUE.types)
def test_an_event_stands_in_the_documents_of_those_who_declare_it(name: str) -> None:
    """An event type is in the documents of the products whose resources declare it, and else in exactly one (P-24)."""
    declaring = {
        product_of(router.prefix)
        for router in ROUTERS
        if isinstance(router, ResourceRouter) and router.resource
        for event in router.resource.events
        if event.name == name
    }
    found = {product for product in PRODUCTS if name in read(product)["webhooks"]}
    assert found == declaring or (not declaring and len(found) == 1)


@pytest.mark.parametrize("subject", OPERATIONS, ids=str)
def test_an_operation_keeps_the_conventions(subject: Operation) -> None:
    """Every operation documents key, scope, events, ids and errors in the same way (P-04, P-05, P-11, P-13, X16)."""
    operation = subject.spec
    parameters = {parameter["name"]: parameter for parameter in operation.get("parameters", [])}
    if subject.mutating and not KEYLESS.match(subject.path):
        assert parameters["Idempotency-Key"]["required"] is True
        assert parameters["Idempotency-Key"]["schema"]["maxLength"] == 255
        # An operation that only reads, such as a preview, needs a read scope and emits no event.
        assert operation.get("x-events") or operation["x-scope"].endswith(":read")
        declared = [name for name in operation.get("x-events", []) if name != "*"]
        assert set(declared) <= set(SPINE["webhooks"])
    else:
        assert "Idempotency-Key" not in parameters
    if operation.get("security") != []:
        assert re.fullmatch(r"[a-z_]+:[a-z_]+", operation["x-scope"])
    assert not {"page", "offset", "skip", "per_page"} & set(parameters)
    for name, parameter in parameters.items():
        if parameter["in"] == "path" and (name == "id" or name.endswith("_id")):
            assert re.fullmatch(r"\^[a-z]+_.+\$", parameter["schema"]["pattern"]), name
    for status, response in operation["responses"].items():
        assert int(status) < 400 or response == {"$ref": f"#/components/responses/Problem{status}"}
    assert operation["summary"]
    assert operation["operationId"]


def test_operation_ids_name_methods_of_clients() -> None:
    """Each operationId is a unique, short verb and noun in snake_case: generated clients name their methods by it."""
    webhooks = [item["post"]["operationId"] for item in SPINE["webhooks"].values()]
    names = [operation.spec["operationId"] for operation in OPERATIONS]
    assert len({*names, *webhooks}) == len(names) + len(webhooks)
    nouns = {noun.partition("_")[0] for noun in PREFIXES} - {"replay"}  # which is a verb too
    for name in [*names, *webhooks]:
        assert re.fullmatch(r"[a-z]+(_[a-z0-9]+)+", name), name
        assert len(name) <= 64, name
        assert name.partition("_")[0] not in nouns, f"{name} does not begin with a verb"


def test_lists_take_a_cursor_and_a_bounded_limit() -> None:
    """Every list has the parameters `cursor` and `limit`, which is 1 to 100 and by default 25 (conventions 2.2)."""
    lists = 0
    for operation in OPERATIONS:
        answer = operation.spec["responses"].get("200", {}).get("content", {}).get("application/json", {})
        if "PageOf" not in json.dumps(answer):
            continue
        lists += 1
        parameters = {parameter["name"]: parameter["schema"] for parameter in operation.spec["parameters"]}
        assert "cursor" in parameters, operation
        limit = parameters["limit"]
        assert (limit["minimum"], limit["maximum"], limit["default"]) == (1, 100, 25), operation
    assert lists >= 7


def test_every_route_is_public_or_known() -> None:
    """Every route is in the specification or in the list of undocumented routes."""
    served = {route.path for route in routes(app.routes)}
    assert served - set(SPINE["paths"]) == UNDOCUMENTED
    assert set(SPINE["paths"]) <= served


def test_every_declared_event_is_in_the_webhooks_and_emitted_by_somebody() -> None:
    """The webhooks section is the catalogue. Every event is declared by an operation or emitted by the workers."""
    assert set(SPINE["webhooks"]) == set(CATALOGUE.types)
    declared = {name for operation in OPERATIONS for name in operation.spec.get("x-events", [])} - {"*"}
    assert set(CATALOGUE.types) - declared == EMITTED_BY_WORKERS


def test_a_resource_is_data() -> None:
    """A Resource has no callables and no flags. Operations that need them are written by hand."""
    for resource in RESOURCES:
        for name in resource.__dataclass_fields__:
            value = getattr(resource, name)
            assert not isinstance(value, bool)
            assert isinstance(value, type) or not callable(value), (resource.noun, name)
