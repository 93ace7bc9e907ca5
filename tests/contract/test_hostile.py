"""Hostile or unusual input: the response is a 4xx problem document, never a 5xx."""

import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from spine.kernel.database_errors import to_spine_error
from tests.api import Api, Organisation
from tests.contract.specification import AUTHENTICATED, OPERATIONS, SPINE, Operation
from tests.one_of_each import OneOfEach, create_one_of_each

DEEP = 100_000
NOT_JSON = {
    "broken": b'{"name": ',
    "invalid-utf-8": b'{"name": "\xff\xfe"}',
    "lone-surrogate": b'{"name": "\\ud800"}',
    "utf-16": '{"name": "Ann"}'.encode("utf-16"),
    "not-a-number": b'{"name": NaN}',
    "too-large-a-float": b'{"name": 1e999}',
    "too-large-an-integer": b'{"name": 123456789012345678901234567890}',
    "trailing-comma": b'{"name": "Ann",}',
    "two-values": b'{"name": "Ann"} {}',
    "very-deep": b"[" * DEEP + b"]" * DEEP,
    "too-deep-to-write": b'{"name": ' + b"[" * 500 + b"]" * 500 + b"}",
}
ODD_VALUES: dict[str, Any] = {
    "nul": "a\x00b",
    "private-use": "\ue000\U0010ffff",
    "right-to-left": "\u202egnp.exe",
    "largest": 2**63 - 1,
    "beyond-a-column": 2**40,
    "below": -(2**63),
    "tiny": 5e-324,
    "huge": 1.7e308,
    "true": True,
    "null": None,
    "list": [[]],
    "object": {"a": {"\x00": "\x00"}},
    "long": "x" * 100_000,
    "earliest-time": "0001-01-01T00:00:00+14:00",
    "latest-time": "9999-12-31T23:59:59-14:00",
    "leap-second": "2026-06-30T23:59:60Z",
    "seconds-since": "1700000000",
}
# A provider's callback checks the signature before the body: every call of these tests would be 401.
WITH_BODY = [operation for operation in OPERATIONS if operation.takes_body and "/inbound/" not in operation.path]


@pytest.fixture(scope="module")
def organisation(api: Api) -> Organisation:
    """The organisation of all calls."""
    return api.sign_up()


@pytest.fixture(scope="module")
def existing(organisation: Organisation, api: Api) -> OneOfEach:
    """The resources of its test workspace."""
    return create_one_of_each(organisation.test, api.database_url)


@pytest.fixture(scope="module")
def http(organisation: Organisation) -> Iterator[httpx.Client]:
    """A client of its test workspace."""
    with organisation.test.client() as made:
        yield made


def send(http: httpx.Client, operation: Operation, path: str, content: bytes, **headers: str) -> httpx.Response:
    """Send exactly these bytes, as JSON unless a header says otherwise."""
    return http.request(
        operation.method, path, content=content, headers={"content-type": "application/json", **headers}
    )


def fields_of(schema: Any) -> list[str]:
    """Return the names of a body's fields."""
    if "$ref" in schema:
        return fields_of(SPINE["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    for choice in schema.get("anyOf", []):
        if "$ref" in choice:
            return fields_of(choice)
    return list(schema.get("properties", {}))


def assert_problem(answer: httpx.Response, *statuses: int) -> None:
    """Check that the response is a problem document with one of these statuses."""
    assert answer.status_code in statuses, answer.text[:500]
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["request_id"] == answer.headers["request-id"]


@pytest.mark.parametrize("operation", WITH_BODY, ids=str)
def test_what_is_not_json_is_422(operation: Operation, http: httpx.Client, existing: OneOfEach) -> None:
    """Text that is not JSON, or JSON that we cannot store unchanged, is 422."""
    for name, content in NOT_JSON.items():
        answer = send(http, operation, existing.path(operation.path), content)
        assert_problem(answer, 422)
        # A body that is too deep is refused by the schema or by the fingerprint.
        assert answer.json()["code"] == "invalid_json" or name == "too-deep-to-write"


@pytest.mark.parametrize("operation", WITH_BODY, ids=str)
def test_a_body_over_the_limit_is_413(operation: Operation, http: httpx.Client, existing: OneOfEach) -> None:
    """A body over the limit is 413, with and without a Content-Length."""
    content = b'{"name": "' + b"x" * (4 * 1024 * 1024) + b'"}'
    assert_problem(send(http, operation, existing.path(operation.path), content), 413)
    chunked = http.request(
        operation.method,
        existing.path(operation.path),
        content=(content[n : n + 65536] for n in range(0, len(content), 65536)),
        headers={"content-type": "application/json"},
    )
    assert_problem(chunked, 413)


@pytest.mark.parametrize("operation", WITH_BODY, ids=str)
def test_odd_values_in_every_field(operation: Operation, http: httpx.Client, existing: OneOfEach) -> None:
    """Every odd value in every field of a valid body is accepted or refused without a 5xx."""
    valid: dict[str, Any] = operation.body()
    schema = operation.spec["requestBody"]["content"]["application/json"]["schema"]
    fields = set(valid) | set(fields_of(schema)) | {"metadata", "unknown_field"}
    for field in sorted(fields):
        for name, value in ODD_VALUES.items():
            body = json.dumps({**valid, field: value}).encode()
            answer = send(http, operation, existing.path(operation.path), body)
            assert answer.status_code < 500, (field, name, answer.text)


@pytest.mark.parametrize("operation", WITH_BODY, ids=str)
def test_another_content_type_is_422(operation: Operation, http: httpx.Client, existing: OneOfEach) -> None:
    """A body with another content type than JSON is 422."""
    for content_type in ("application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/xml", "", "/"):
        answer = send(http, operation, existing.path(operation.path), b"name=Ann", **{"content-type": content_type})
        assert_problem(answer, 422)


@pytest.mark.parametrize("operation", AUTHENTICATED, ids=str)
def test_odd_ids_are_not_found(operation: Operation, http: httpx.Client) -> None:
    """An id of another kind, in lower case or with unusual characters is 404, like an id that does not exist."""
    if not operation.of_one:
        return
    start, end = operation.path.index("{"), operation.path.index("}") + 1
    ulid = "01M7XZQ13PQ2QS290DBGHN958X"
    for id in ("%00", "a%00b", "%ED%A0%80", "%F0%9F%98%80", f"req_{ulid}", f"usr_{ulid.lower()}", f"whe_8{ulid[1:]}",
               f"evt_{ulid}%0A", f"whe_{ulid}x", "'%20OR%201=1--", "x" * 3000, "%2e%2e", "null"):  # fmt: skip
        path = operation.path[:start] + id + operation.path[end:]
        body = operation.body()
        answer = http.request(operation.method, path, **({} if body is None else {"json": body}))
        assert_problem(answer, 404, 405)  # 405: `..` leads to another path


LISTS = [operation for operation in AUTHENTICATED if "limit" in str(operation.spec.get("parameters"))]


@pytest.mark.parametrize("operation", LISTS, ids=str)
def test_odd_queries(operation: Operation, http: httpx.Client, existing: OneOfEach) -> None:
    """Every value of a query parameter gives a page, 400 or 422."""
    path = existing.path(operation.path)
    names = [parameter["name"] for parameter in operation.spec["parameters"] if parameter["in"] == "query"]
    values = ("", "%00", "a%00b", "%FF", "%ED%A0%80", "-1", "0", "101", "1e3", "9" * 40, "AAAA", "AAA%3D", "%2B%2F==",
              "é", "x" * 5000, "0001-01-01T00:00:00%2B14:00", "9999-12-31T23:59:59-14:00", "2026-01-01", "[]")  # fmt: skip
    for name in names:
        for value in values:
            answer = http.get(f"{path}?{name}={value}")
            assert answer.status_code in (200, 400, 422), (name, value, answer.text)
    assert http.get(f"{path}?limit=0").status_code == 422
    assert http.get(f"{path}?limit=101").status_code == 422
    assert http.get(f"{path}?limit=100").status_code == 200


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_other_methods_are_405(operation: Operation, http: httpx.Client, existing: OneOfEach) -> None:
    """HEAD, OPTIONS, TRACE and unknown methods are 405 with the allowed methods."""
    for method in ("HEAD", "OPTIONS", "TRACE", "PROPFIND"):
        answer = http.request(method, existing.path(operation.path))
        assert answer.status_code == 405
        assert answer.headers["allow"]


def test_unknown_paths_are_404(http: httpx.Client) -> None:
    """Unknown paths, and known ones with an additional slash, are 404 and not redirected."""
    for path in ("/", "/v1", "/v1/", "/v1/users/", "//v1/users", "/v1/nothing", "/v1/users/%2e%2e/events%00"):
        answer = http.get(path)
        assert_problem(answer, 404)


@pytest.mark.parametrize(
    "content",
    [
        b'{"name": "A", "name": "B", "email": "b@example.com"}',
        b'{"name": "A", "metadata": {"a": {"deep": [{"x": 1, "x" : 1}]}}}',
        b'{"name": "A", "metadata": {"x:y": 1, "x\\u003ay": 2, "z": "\\u003a"}}',
        b'{"na\\u006de": "A", "name": "\\u003a\\u003A"}',
    ],
    ids=["top", "deep", "escaped-colons", "escaped-name"],
)
def test_a_repeated_name_is_422(content: bytes, http: httpx.Client) -> None:
    """An object that has a name twice, at any depth and however it is written, is refused, and the name is named."""
    answer = http.post("/v1/users", content=content, headers={"content-type": "application/json"})
    assert_problem(answer, 422)
    assert answer.json()["code"] == "invalid_json"
    assert "twice" in answer.json()["detail"]


def test_a_colon_is_no_repeated_name(http: httpx.Client) -> None:
    """Colons in names and values, escaped or not, are no reason to refuse a body."""
    content = b'{"name": ":a\\u003a", "email": "b@example.com", "metadata": {":": "\\\\u003a", "\\u003A:": ""}}'
    answer = http.post("/v1/users", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 201, answer.text
    assert answer.json()["name"] == ":a:"


def test_a_connection_that_breaks_within_a_body(api: Api, organisation: Organisation, http: httpx.Client) -> None:
    """The API serves other requests after connections break within a body."""
    address = urlsplit(api.url)
    for _ in range(3):
        with socket.create_connection((address.hostname or "", address.port or 0)) as raw:
            raw.sendall(
                b"POST /v1/users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n"
                b"Idempotency-Key: k\r\nAuthorization: Bearer " + organisation.test.key.encode() + b'\r\n\r\n{"name": "'
            )
    assert http.get("/v1/users").status_code == 200


def test_unknown_errors_are_500() -> None:
    """Only known errors are converted to a response. All others are logged and become a plain 500."""
    assert to_spine_error(RuntimeError("x")) is None
    assert to_spine_error(ValueError("x")) is None
    unreachable = to_spine_error(ConnectionRefusedError())
    assert unreachable is not None
    assert unreachable.status == 503
