"""The order of checks in every operation: 401, 403, 400, 429, 422, 404, 409 (wire.md, "Everywhere")."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.api import TLS, Api, Organisation, client, serve, unique_key
from tests.contract.specification import AUTHENTICATED, OPERATIONS, Operation

INVALID_BODY: Any = []
every_operation = pytest.mark.parametrize("operation", AUTHENTICATED, ids=str)
every_mutation = pytest.mark.parametrize(
    "operation", [operation for operation in AUTHENTICATED if operation.mutating], ids=str
)


@pytest.fixture(scope="module")
def organisation(api: Api) -> Organisation:
    """The organisation of all calls."""
    return api.sign_up()


@pytest.fixture(scope="module")
def narrow_key(organisation: Organisation) -> str:
    """A key with a scope that no operation needs."""
    with organisation.test.client() as http:
        made = http.post("/v1/api_keys", json={"name": "narrow", "scopes": ["nothing:read"]})
    key: str = made.json()["api_key"]
    return key


@pytest.fixture(scope="module")
def rate_limited(api: Api) -> Iterator[Api]:
    """An API with a limit of one request per window. The window is long, so that it does not end during a test."""
    with (
        pytest.MonkeyPatch.context() as patched,
        serve(api.database_url, "redis://127.0.0.1:1/0", SPINE_RATE_LIMIT_REQUESTS="1") as running,
    ):
        patched.setattr("spine.kernel.rate_limits.WINDOW_S", 1_000_000_000)
        yield running


def call(url: str, operation: Operation, key: str | None, body: Any = None, **headers: str) -> httpx.Response:
    """Call the operation with exactly these headers and this body, and an id that does not exist."""
    if key:
        headers["Authorization"] = f"Bearer {key}"
    content = {} if body is None else {"json": body}
    with httpx.Client(base_url=url, trust_env=False, timeout=30, verify=TLS) as http:
        raw = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
        return http.request(operation.method, operation.random_path(), headers=raw, **content)


def assert_problem(answer: httpx.Response, status: int, code: str | None = None) -> None:
    """Check that the response is a problem document with this status, this code and the request's id."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert code is None or problem["code"] == code
    assert problem["request_id"] == answer.headers["request-id"]
    assert {"type", "title", "detail"} <= problem.keys()


@every_operation
def test_first_the_key(operation: Operation, api: Api) -> None:
    """Without a valid key the response is 401 with the challenge, whatever else is wrong (P-01)."""
    answer = call(api.url, operation, None, INVALID_BODY)
    assert_problem(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"] == "Bearer"


@every_operation
def test_then_the_scope(operation: Operation, api: Api, narrow_key: str) -> None:
    """A key without the scope gets 403 before the Idempotency-Key, the body and the id are checked."""
    assert_problem(call(api.url, operation, narrow_key, INVALID_BODY), 403, "scope_missing")


@every_mutation
@pytest.mark.parametrize(
    ("header", "code"),
    [
        ({}, "idempotency_key_required"),
        ({"Idempotency-Key": ""}, "idempotency_key_required"),
        ({"Idempotency-Key": "k" * 256}, "idempotency_key_invalid"),
        ({"Idempotency-Key": "two words"}, "idempotency_key_invalid"),
        ({"Idempotency-Key": "clé"}, "idempotency_key_invalid"),
    ],
    ids=["missing", "empty", "long", "blank", "not-ascii"],
)
def test_then_the_idempotency_key(
    operation: Operation, header: dict[str, str], code: str, api: Api, organisation: Organisation
) -> None:
    """A mutation without a valid Idempotency-Key is 400, before body and id are checked (X15)."""
    assert_problem(call(api.url, operation, organisation.test.key, INVALID_BODY, **header), 400, code)


@every_operation
def test_then_the_rate_limit(operation: Operation, rate_limited: Api, organisation: Organisation) -> None:
    """A workspace over its rate limit gets 429 with Retry-After, before body and id are checked."""
    with client(rate_limited.url, organisation.test.key) as http:
        http.get("/v1/users")
    key = {"Idempotency-Key": unique_key()} if operation.mutating else {}
    answer = call(rate_limited.url, operation, organisation.test.key, INVALID_BODY, **key)
    assert_problem(answer, 429, "rate_limited")
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["ratelimit"].startswith('"default";r=0;t=')


@pytest.mark.parametrize("operation", [operation for operation in AUTHENTICATED if operation.takes_body], ids=str)
def test_then_the_body(operation: Operation, api: Api, organisation: Organisation) -> None:
    """An invalid body is 422 with the name of the field, before the id is read from the database."""
    answer = call(api.url, operation, organisation.test.key, INVALID_BODY, **{"Idempotency-Key": unique_key()})
    assert_problem(answer, 422, "validation_failed")
    assert "body" in [error["param"] for error in answer.json()["errors"]]


@pytest.mark.parametrize("operation", [operation for operation in AUTHENTICATED if operation.of_one], ids=str)
def test_then_the_id(operation: Operation, api: Api, organisation: Organisation) -> None:
    """An id that does not exist is 404 if everything else is valid."""
    key = {"Idempotency-Key": unique_key()} if operation.mutating else {}
    assert_problem(call(api.url, operation, organisation.test.key, operation.body(), **key), 404, "not_found")


def test_last_the_state(organisation: Organisation) -> None:
    """A valid call in a wrong state of the resource is 409 with the allowed states."""
    with organisation.test.client() as http:
        made = http.post("/v1/webhook_endpoints", json={"url": "http://127.0.0.1:9/", "events": ["*"]}).json()
        bad = http.post(f"/v1/webhook_endpoints/{made['id']}/enable", json={"held": "since"})
        assert_problem(bad, 422)
        again = http.post(f"/v1/webhook_endpoints/{made['id']}/enable")
    assert_problem(again, 409, "illegal_transition")
    assert again.json()["allowed"] == ["disabled"]


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_every_response_has_a_request_id(operation: Operation, api: Api) -> None:
    """Every response has exactly one header `Request-Id: req_…` (conventions 2.10)."""
    answer = call(api.url, operation, None)
    found = answer.headers.get_list("request-id")
    assert len(found) == 1
    assert found[0].startswith("req_")
