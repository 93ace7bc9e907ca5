"""Users: the generated verbs, as every simple resource has them."""

import re
from datetime import UTC, datetime, timedelta

import httpx


def test_a_user_is_made_read_and_listed(http: httpx.Client) -> None:
    """201 with Location, the common fields, and the same resource ever after (X20, products 3)."""
    answer = http.post("/v1/users", json={"name": " Ann ", "email": "ann@example.com", "metadata": {"team": "a"}})
    assert answer.status_code == 201
    made = answer.json()
    assert answer.headers["location"] == f"/v1/users/{made['id']}"
    assert re.fullmatch(r"usr_[0-7][0-9A-HJKMNP-TV-Z]{25}", made["id"])
    assert made | {"id": "", "created_at": "", "updated_at": ""} == {
        "id": "", "object": "user", "created_at": "", "updated_at": "", "version": 1,
        "metadata": {"team": "a"}, "name": "Ann", "email": "ann@example.com",
    }  # fmt: skip
    assert made["created_at"].endswith("Z")
    assert abs(datetime.fromisoformat(made["created_at"]) - datetime.now(UTC)) < timedelta(seconds=10)
    assert http.get(answer.headers["location"]).json() == made
    assert http.get("/v1/users").json() == {"data": [made], "has_more": False, "next_cursor": None}


def test_an_email_is_taken_once(http: httpx.Client) -> None:
    """The second user of an email is 409 `user_exists`, naming the field and nobody's row."""
    body = {"name": "Ann", "email": "ann@example.com"}
    http.post("/v1/users", json=body)
    answer = http.post("/v1/users", json=body)
    assert (answer.status_code, answer.json()["code"], answer.json()["param"]) == (409, "user_exists", "email")
    assert "users_" not in answer.text


def test_unknown_fields_are_refused_by_name(http: httpx.Client) -> None:
    """Nothing that a caller sends is dropped silently."""
    answer = http.post("/v1/users", json={"name": "Ann", "email": "ann@example.com", "e_mail": "x", "id": "usr_1"})
    assert answer.status_code == 422
    assert {error["param"] for error in answer.json()["errors"]} == {"e_mail", "id"}


def test_making_a_user_is_an_event(http: httpx.Client) -> None:
    """`user.created` carries the user, the request's id and who did it (P-04)."""
    answer = http.post("/v1/users", json={"name": "Ann", "email": "ann@example.com"})
    (event,) = http.get("/v1/events", params={"type": "user.*"}).json()["data"]
    assert event["type"] == "user.created"
    assert event["data"] == answer.json()
    assert event["request_id"] == answer.headers["request-id"]
    assert event["actor"]["type"] == "api_key"
    assert event["sequence"] == 1
