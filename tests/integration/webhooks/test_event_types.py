"""Event types of the caller's own, and the schemas that their data must fit."""

from typing import Any

import httpx
import pytest

ORDER = {
    "type": "object",
    "required": ["id", "lines"],
    "properties": {
        "id": {"type": "string", "pattern": "^A[0-9]+$"},
        "lines": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/line"}},
    },
    "$defs": {"line": {"type": "object", "required": ["sku"], "properties": {"sku": {"type": "string"}}}},
}


def register(http: httpx.Client, name: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    """A registered type."""
    answer = http.post("/v1/event_types", json={"name": name, "schema": schema, "description": "An order."})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def send(http: httpx.Client, data: Any, type: str = "order.paid") -> httpx.Response:
    """The answer to an event."""
    return http.post("/v1/events", json={"type": type, "data": data})


def test_data_is_checked_from_the_registration_on(http: httpx.Client) -> None:
    """Before there is a schema anything goes; from its 201 on, data that does not fit is 422, place by place (wire.md)."""
    assert send(http, {"id": 1}).status_code == 201
    made = register(http, "order.paid", ORDER)
    assert made["schema"] == ORDER
    assert http.get(f"/v1/event_types/{made['id']}").json() == made
    assert send(http, {"id": "A1", "lines": [{"sku": "x"}]}).status_code == 201
    refused = send(http, {"id": "B1", "lines": [{"sku": "x"}, {"sku": 2}]})
    assert (refused.status_code, refused.json()["code"]) == (422, "event_data_invalid")
    assert [(error["param"], error["code"]) for error in refused.json()["errors"]] == [
        ("data.id", "pattern"),
        ("data.lines.1.sku", "type"),
    ]
    batch = http.post(
        "/v1/events/batch",
        json={
            "events": [{"type": "order.other", "data": {}}, {"type": "order.paid", "data": {"id": "A1", "lines": []}}]
        },
    )
    assert (batch.status_code, batch.json()["param"]) == (422, "events.1.data.lines")


def test_an_archived_type_is_refused(http: httpx.Client) -> None:
    """From the archiving on, events of the type are 409; archiving again is 409 too."""
    made = register(http, "order.paid")
    assert send(http, {}).status_code == 201
    archived = http.post(f"/v1/event_types/{made['id']}/archive").json()
    assert archived["status"] == "archived"
    refused = send(http, {})
    assert (refused.status_code, refused.json()["code"]) == (409, "event_type_archived")
    again = http.post(f"/v1/event_types/{made['id']}/archive")
    assert (again.status_code, again.json()["code"], again.json()["allowed"]) == (409, "illegal_transition", [])


def test_a_name_is_taken_once(http: httpx.Client) -> None:
    """The second of a name is 409 `event_type_exists`."""
    register(http, "order.paid")
    answer = http.post("/v1/event_types", json={"name": "order.paid"})
    assert (answer.status_code, answer.json()["code"]) == (409, "event_type_exists")


DEEP: dict[str, Any] = {}
for _ in range(120):
    DEEP = {"properties": {"a": DEEP}}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"properties": []},
        {"$ref": "https://example.com/schema.json"},
        {"$ref": "other.json#/x"},
        {"$ref": "#/$defs/missing"},
        {"$id": "https://example.com/", "type": "object"},
        {"properties": {"a": {"pattern": "("}}},
        {"properties": {"a": {"pattern": "(?=x)y"}}},
        {"patternProperties": {"^(a+)+$": {}}},
        {"description": "x" * 70_000},
        DEEP,
        {"properties": {f"p{n}": {"pattern": f"^[a-z]{{{n}}}$"} for n in range(21)}},
        {"pattern": "a" * 251},
        {"pattern": "((\\p{L}){1,30}){1,30}"},
        {"properties": {f"p{n}": {"pattern": f"^\\w{{1,64}}\\p{{L}}{{{n}0}}$"} for n in range(1, 61)}},
    ],
    ids=[
        *("type", "shape", "remote", "relative", "nowhere", "base", "pattern", "look-around", "names", "long", "deep"),
        *("21 patterns", "a long pattern", "a large pattern", "60 large patterns"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused(schema: dict[str, Any], http: httpx.Client) -> None:
    """What we could not judge later is refused now: 422, naming `schema`, and nothing is fetched from anywhere."""
    answer = http.post("/v1/event_types", json={"name": "order.paid", "schema": schema})
    assert (answer.status_code, answer.json()["param"]) == (422, "schema"), answer.text


BOOM = {
    "$defs": {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)} | {"d40": {}},
    "$ref": "#/$defs/d0",
}


@pytest.mark.parametrize("schema", [BOOM, {"$ref": "#"}], ids=["doubling", "endless"])
def test_no_schema_stops_the_process(schema: dict[str, Any], http: httpx.Client) -> None:
    """A schema that would run for ever costs its own workspace a 422, and everybody else nothing."""
    register(http, "order.paid", schema)
    refused = send(http, {"n": 1})
    assert (refused.status_code, refused.json()["code"]) == (422, "event_data_too_costly")
    assert send(http, {}, "order.other").status_code == 201


def test_patterns_take_linear_time(http: httpx.Client) -> None:
    """The pattern that makes backtracking engines hang is answered like any other."""
    register(http, "order.paid", {"properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}})
    assert send(http, {"a": "a" * 50_000}).status_code == 201
    assert send(http, {"a": "a" * 50_000 + "!"}).status_code == 422


def test_a_pattern_costs_what_its_size_and_the_text_say(http: httpx.Client) -> None:
    """A pattern with 900 states took 3 s for one event; now such a text is refused, and a short one is answered as ever."""
    register(http, "order.paid", {"properties": {"a": {"type": "string", "pattern": "a[ab]{900}c"}}})
    refused = send(http, {"a": "ab" * 100_000})
    assert (refused.status_code, refused.json()["code"]) == (422, "event_data_too_costly")
    assert send(http, {"a": "a" + "b" * 900 + "c"}).status_code == 201


def test_common_patterns_are_possible(http: httpx.Client) -> None:
    """Lengths, dates, addresses, words of any script, and as many of them as are possible."""
    patterns = [r"^.{1,255}$", r"^\S{1,128}$", r"^\d{4}-\d\d-\d\d$", r"^[^@]+@[a-z0-9.-]+\.[a-z]{2,}$", r"^\p{L}+$"]
    patterns += [f"^[A-Z]{{{n}}}$" for n in range(15)]
    register(http, "order.paid", {"properties": {f"p{n}": {"pattern": one} for n, one in enumerate(patterns)}})
    data = {"p0": "x" * 255, "p1": "y", "p2": "2026-11-02", "p3": "a@b.example", "p4": "später", "p7": "AB"}
    assert send(http, data).status_code == 201
    assert send(http, data | {"p4": "später!"}).json()["param"] == "data.p4"
