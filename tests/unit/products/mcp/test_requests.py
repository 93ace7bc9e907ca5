"""From a tool's arguments to a request: everything arrives where it belongs, and nothing else does."""

import json
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from products.mcp.requests import to_request
from products.mcp.tools import Argument, Tool
from spine.kernel.errors import BadRequest, InvalidBody, NotFound, SpineError, UrlTooLong

ARGUMENTS = {
    "id": Argument("path", "id"),
    "other": Argument("path", "other"),
    "q": Argument("query", "q"),
    "tags": Argument("query", "tags", many=True),
    "to": Argument("body", "to"),
    "if_match": Argument("header", "If-Match"),
    "idempotency_key": Argument("header", "Idempotency-Key"),
}
TOOL = Tool(
    name="crm_move_lead",
    title="",
    description="",
    scope="crm:write",
    method="POST",
    path="/crm/v1/leads/{id}/move/{other}",
    arguments=ARGUMENTS,
    body="optional",
    open_body=False,
    input_schema={},
    output_schema={},
    read_only=False,
    creates=False,
)
VALID: dict[str, Any] = {"id": "led_1", "other": "x", "idempotency_key": "k"}
texts = st.text(st.characters(exclude_categories=["Cs"]))
segments = texts.filter(lambda text: text and "/" not in text)


@given(segments, segments, texts, st.lists(texts), st.none() | st.booleans() | st.integers() | texts)
def test_every_argument_arrives(id: str, other: str, q: str, tags: list[str], to: Any) -> None:
    """Whatever texts the arguments are, path, query and body hold them unchanged and in their own places."""
    made = to_request(TOOL, VALID | {"id": id, "other": other, "q": q, "tags": tags, "to": to}, 10**6)
    assert made.path == f"/crm/v1/leads/{id}/move/{other}"
    assert parse_qsl(made.query, keep_blank_values=True) == [("q", q), *(("tags", tag) for tag in tags)]
    assert json.loads(made.body) == {"to": to}
    assert made.headers == {"Idempotency-Key": "k", "Content-Type": "application/json"}


def test_a_value_that_looks_like_a_placeholder_stays_what_it_is() -> None:
    """An argument is never replaced by another one."""
    assert to_request(TOOL, VALID | {"id": "{other}"}, 1000).path == "/crm/v1/leads/{other}/move/x"


def test_null_leaves_a_parameter_out_but_is_a_value_in_a_body() -> None:
    """Null in a query or a header is as if it were not given; in a body it says null, as a PATCH needs."""
    made = to_request(TOOL, VALID | {"q": None, "tags": None, "if_match": None, "to": None}, 1000)
    assert (made.query, made.body) == ("", b'{"to": null}')
    assert "If-Match" not in made.headers
    assert to_request(TOOL, VALID, 1000).body == b""


def test_scalars_of_a_query_are_written_as_json_writes_them() -> None:
    """Numbers and booleans of a query are texts that the operation reads."""
    made = to_request(TOOL, VALID | {"q": True, "tags": [1, 2.5, False], "if_match": 3}, 1000)
    assert made.query == "q=true&tags=1&tags=2.5&tags=false"
    assert made.headers["If-Match"] == "3"


@pytest.mark.parametrize(
    ("changes", "error", "param"),
    [
        ({"idempotency_key": None}, BadRequest, "idempotency_key"),
        ({"idempotency_key": "é"}, BadRequest, "idempotency_key"),
        ({"idempotency_key": "k" * 256}, BadRequest, "idempotency_key"),
        ({"idempotency_key": ["k"]}, BadRequest, "idempotency_key"),
        ({"unknown": 1}, InvalidBody, "unknown"),
        ({"id": None}, InvalidBody, "id"),
        ({"id": 1}, InvalidBody, "id"),
        ({"q": ["a"]}, InvalidBody, "q"),
        ({"q": {}}, InvalidBody, "q"),
        ({"tags": ["a", {}]}, InvalidBody, "tags"),
        ({"if_match": []}, InvalidBody, "if_match"),
        ({"id": "../x"}, NotFound, None),
        ({"id": ""}, NotFound, None),
        ({"q": "x" * 1000}, UrlTooLong, None),
    ],
)
def test_what_no_request_can_hold_is_refused_by_name(
    changes: dict[str, Any], error: type[SpineError], param: str | None
) -> None:
    """A wrong argument is refused before any request is made, and the error names it."""
    with pytest.raises(error) as raised:
        to_request(TOOL, VALID | changes, 1000)
    assert raised.value.param == param
    assert param is None or param in raised.value.detail


def test_errors_are_bounded() -> None:
    """Thousands of unknown arguments get an error of bounded size."""
    with pytest.raises(InvalidBody) as raised:
        to_request(TOOL, VALID | {f"{n}{'x' * 1000}": n for n in range(5000)}, 1000)
    assert len(raised.value.body("req_1")) < 20_000


def test_values_nested_too_deeply_are_refused() -> None:
    """A body that cannot be written as JSON is 422, not a failure."""
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InvalidBody, match="nested too deeply"):
        to_request(TOOL, VALID | {"to": deep}, 1000)
