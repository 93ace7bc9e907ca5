"""The order of checks, held against every operation: 401, 403, 400, 429, 422, 404, 409 (wire.md, "Everywhere")."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.api import Api, Organisation, client, serve, unique_key
from tests.contract.specification import BEHIND_THE_DOOR, OPERATIONS, Operation

NO_LIST_IS_A_BODY: Any = []
every_operation = pytest.mark.parametrize("operation", BEHIND_THE_DOOR, ids=str)
every_mutation = pytest.mark.parametrize(
    "operation", [operation for operation in BEHIND_THE_DOOR if operation.mutating], ids=str
)


@pytest.fixture(scope="module")
def founded(api: Api) -> Organisation:
    """The organisation that knocks."""
    return api.sign_up()


@pytest.fixture(scope="module")
def narrow_key(founded: Organisation) -> str:
    """A key with a scope that no operation asks for."""
    with founded.test.client() as http:
        made = http.post("/v1/api_keys", json={"name": "narrow", "scopes": ["nothing:read"]})
    key: str = made.json()["api_key"]
    return key


@pytest.fixture(scope="module")
def spent(api: Api) -> Iterator[Api]:
    """An API whose callers have made their one request. Its minute is long: none ends between two requests of a test."""
    with (
        pytest.MonkeyPatch.context() as patched,
        serve(api.database_url, "redis://127.0.0.1:1/0", SPINE_RATE_LIMIT_REQUESTS="1") as running,
    ):
        patched.setattr("spine.kernel.rate_limits.WINDOW_S", 1_000_000_000)
        yield running


def call(url: str, operation: Operation, key: str | None, body: Any = None, **headers: str) -> httpx.Response:
    """Call with exactly these headers and this body, at an id that nobody has."""
    if key:
        headers["Authorization"] = f"Bearer {key}"
    content = {} if body is None else {"json": body}
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as http:
        raw = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
        return http.request(operation.method, operation.random_path(), headers=raw, **content)


def refused(answer: httpx.Response, status: int, code: str | None = None) -> None:
    """The answer is a problem document with this status and code, and with the request's id."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert code is None or problem["code"] == code
    assert problem["request_id"] == answer.headers["request-id"]
    assert {"type", "title", "detail"} <= problem.keys()


@every_operation
def test_first_who_you_are(operation: Operation, api: Api) -> None:
    """Without a valid key nothing else is looked at: 401, with the challenge, whatever else is wrong (P-01)."""
    answer = call(api.url, operation, None, NO_LIST_IS_A_BODY)
    refused(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"] == "Bearer"


@every_operation
def test_then_what_you_may(operation: Operation, api: Api, narrow_key: str) -> None:
    """A key without the scope gets 403 before its Idempotency-Key, its body or the id are looked at."""
    refused(call(api.url, operation, narrow_key, NO_LIST_IS_A_BODY), 403, "scope_missing")


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
    operation: Operation, header: dict[str, str], code: str, api: Api, founded: Organisation
) -> None:
    """A mutation without a proper Idempotency-Key is 400, before body and id are looked at (X15)."""
    refused(call(api.url, operation, founded.test.key, NO_LIST_IS_A_BODY, **header), 400, code)


@every_operation
def test_then_the_rate(operation: Operation, spent: Api, founded: Organisation) -> None:
    """A workspace that used up its minute gets 429 with Retry-After, before body and id are looked at."""
    with client(spent.url, founded.test.key) as http:
        http.get("/v1/users")
    key = {"Idempotency-Key": unique_key()} if operation.mutating else {}
    answer = call(spent.url, operation, founded.test.key, NO_LIST_IS_A_BODY, **key)
    refused(answer, 429, "rate_limited")
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["ratelimit"].startswith('"default";r=0;t=')


@pytest.mark.parametrize("operation", [operation for operation in BEHIND_THE_DOOR if operation.takes_body], ids=str)
def test_then_the_body(operation: Operation, api: Api, founded: Organisation) -> None:
    """A body that does not fit is 422 before the id is looked up, and the field at fault is named."""
    answer = call(api.url, operation, founded.test.key, NO_LIST_IS_A_BODY, **{"Idempotency-Key": unique_key()})
    refused(answer, 422, "validation_failed")
    assert "body" in [error["param"] for error in answer.json()["errors"]]


@pytest.mark.parametrize("operation", [operation for operation in BEHIND_THE_DOOR if operation.of_one], ids=str)
def test_then_the_look_up(operation: Operation, api: Api, founded: Organisation) -> None:
    """With everything else right an id that nobody has is 404."""
    key = {"Idempotency-Key": unique_key()} if operation.mutating else {}
    refused(call(api.url, operation, founded.test.key, operation.body(), **key), 404, "not_found")


def test_last_the_state(founded: Organisation) -> None:
    """Only what is there, and asked for properly, can be in the wrong state: 409 with what is allowed."""
    with founded.test.client() as http:
        made = http.post("/v1/webhook_endpoints", json={"url": "http://127.0.0.1:9/", "events": ["*"]}).json()
        bad = http.post(f"/v1/webhook_endpoints/{made['id']}/enable", json={"held": "since"})
        refused(bad, 422)
        again = http.post(f"/v1/webhook_endpoints/{made['id']}/enable")
    refused(again, 409, "illegal_transition")
    assert again.json()["allowed"] == ["disabled"]


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_every_answer_carries_a_request_id(operation: Operation, api: Api) -> None:
    """`Request-Id: req_…` stands on every answer, once (conventions 2.10)."""
    answer = call(api.url, operation, None)
    found = answer.headers.get_list("request-id")
    assert len(found) == 1
    assert found[0].startswith("req_")
