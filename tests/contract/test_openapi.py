"""The OpenAPI documents are valid, consistent with each other and with the code."""

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from fastapi.routing import APIRoute
from openapi_spec_validator import OpenAPIV31SpecValidator

from products.app import app
from products.catalogue import CATALOGUE, RESOURCES
from products.openapi import DIRECTORY, drifted
from tests.contract.specification import OPERATIONS, SPINE, Operation, read
from tests.servers import ROOT

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
}
"""Routes outside the public specification: health, and the specification itself (P-26)."""
EMITTED_BY_WORKERS = {"delivery.dead_lettered", "replay.completed", "ticket.sla_breached"}
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


def test_a_changed_validator_is_seen_as_drift() -> None:
    """After a change of one validator the documents are reported as outdated (P-23)."""
    mutation = (
        "import sys, typing, pydantic, spine.kernel.resource as resource\n"
        "resource.Name = typing.Annotated[str, pydantic.StringConstraints(min_length=1, max_length=199)]\n"
        "from products.openapi import drifted\n"
        "print(*drifted())\n"
    )
    done = subprocess.run([sys.executable, "-c", mutation], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "spine.json" in done.stdout.split()
    assert "platform.json" in done.stdout.split()


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


@pytest.mark.parametrize("component", ["Error", "Page", "Event"])
def test_shared_components_are_the_same_everywhere(component: str) -> None:
    """A shared component is byte-identical in every document (P-24)."""
    assert len({json.dumps(read(name)["components"]["schemas"][component], sort_keys=True) for name in NAMES}) == 1


def test_the_whole_is_the_sum_of_its_parts() -> None:
    """The document of the suite has exactly the operations and webhooks of the products' documents."""
    parts = [read(name) for name in NAMES if name != "spine"]
    for section in ("paths", "webhooks"):
        assert {key for part in parts for key in part[section]} == set(SPINE[section])
        for part in parts:
            assert all(SPINE[section][key] == item for key, item in part[section].items())


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


def test_operation_ids_are_unique() -> None:
    """Each operationId is unique, because clients and tools are generated from it."""
    names = [operation.spec["operationId"] for operation in OPERATIONS]
    assert len(names) == len(set(names))


def test_lists_take_a_cursor_and_a_bounded_limit() -> None:
    """Every list has the parameters `cursor` and `limit`, which is 1 to 100 and by default 25 (conventions 2.2)."""
    lists = 0
    for operation in OPERATIONS:
        answer = operation.spec["responses"].get("200", {}).get("content", {}).get("application/json", {})
        if "Page_" not in json.dumps(answer):
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
