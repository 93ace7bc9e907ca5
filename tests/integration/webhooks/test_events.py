"""Accepting events, one by one and in batches; the catalogue; erasure."""

import asyncio
import re
from datetime import datetime
from typing import Any

import asyncpg
import httpx
import jsonschema
import pytest

from tests.api import Api, Organisation, client, serve, unique_key


def accept(http: httpx.Client, type: str = "order.paid", **data: Any) -> dict[str, Any]:
    """An accepted event."""
    answer = http.post("/v1/events", json={"type": type, "data": data})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def test_an_event_is_accepted_and_read(http: httpx.Client, org: Organisation) -> None:
    """201 with Location; what is read later is what was answered, with all that webhooks carry (webhooks.md)."""
    answer = http.post("/v1/events", json={"type": "order.paid", "data": {"n": 1, "ü": [None, 1.5, "\0"]}})
    made = answer.json()
    assert answer.headers["location"] == f"/v1/events/{made['id']}"
    assert made["object"] == "event"
    assert made["type"] == "order.paid"
    assert made["data"] == {"n": 1, "ü": [None, 1.5, "\0"]}
    assert made["workspace_id"] == org.test.workspace_id
    assert made["env"] == "test"
    assert made["request_id"] == answer.headers["request-id"]
    assert made["actor"]["type"] == "api_key"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", made["timestamp"])
    assert made["timestamp"] == made["created_at"]
    assert http.get(f"/v1/events/{made['id']}").json() == made
    assert http.get("/v1/events").json()["data"] == [made]


async def test_accepting_is_atomic_with_the_outbox(api: Api, org: Organisation) -> None:
    """Each accepted event has its row in the outbox, in the same transaction (P-20)."""
    async with org.test.async_client() as http:
        made = (await http.post("/v1/events", json={"type": "order.paid", "data": {}})).json()
    owner = await asyncpg.connect(api.database_url)
    try:
        same = await owner.fetchval(
            "SELECT o.xmin = e.xmin FROM spine.outbox o JOIN spine.events e ON e.id = o.event_id WHERE e.id = $1",
            made["id"],
        )
    finally:
        await owner.close()
    assert same is True


def test_when_it_happened_may_be_told(http: httpx.Client) -> None:
    """`occurred_at` becomes the event's timestamp, in UTC; when it was accepted stays in the id."""
    body = {"type": "order.paid", "data": {}, "occurred_at": "2025-02-03T04:05:06.789+02:00"}
    made = http.post("/v1/events", json=body).json()
    assert made["timestamp"] == "2025-02-03T02:05:06.789Z"
    assert made["created_at"] > "2026"
    refused = http.post("/v1/events", json={**body, "occurred_at": "2025-02-03T04:05:06"})
    assert (refused.status_code, refused.json()["param"]) == (422, "occurred_at")


def test_sequences_rise(http: httpx.Client) -> None:
    """Later events of a caller have larger sequences."""
    made = [accept(http)["sequence"] for _ in range(5)]
    batch = http.post("/v1/events/batch", json={"events": [{"type": "order.paid", "data": {}}] * 5}).json()["data"]
    made += [event["sequence"] for event in batch]
    assert made == sorted(set(made))


def test_a_batch_is_accepted_whole_in_its_order(http: httpx.Client) -> None:
    """A thousand events in one call: all of them, in the order given; a replay says the same again."""
    events = [{"type": "order.paid", "data": {"n": n}} for n in range(1000)]
    key = {"Idempotency-Key": unique_key()}
    answer = http.post("/v1/events/batch", json={"events": events}, headers=key)
    assert answer.status_code == 201
    assert [event["data"]["n"] for event in answer.json()["data"]] == list(range(1000))
    assert http.post("/v1/events/batch", json={"events": events}, headers=key).content == answer.content
    over = http.post("/v1/events/batch", json={"events": [*events, events[0]]})
    assert (over.status_code, over.json()["param"]) == (422, "events")
    assert http.post("/v1/events/batch", json={"events": []}).status_code == 422


def test_a_batch_is_refused_whole(http: httpx.Client) -> None:
    """One event that cannot be accepted, and none is; the fault is named by its place."""
    events = [{"type": "order.paid", "data": {}}, {"type": "user.created", "data": {}}]
    answer = http.post("/v1/events/batch", json={"events": events})
    assert (answer.status_code, answer.json()["code"], answer.json()["param"]) == (
        409,
        "event_type_reserved",
        "events.1.type",
    )
    events[1] = {"type": "order.paid"}
    answer = http.post("/v1/events/batch", json={"events": events})
    assert (answer.status_code, answer.json()["param"]) == (422, "events.1.data")
    assert http.get("/v1/events").json()["data"] == []


def test_an_event_has_a_size(api: Api, org: Organisation) -> None:
    """More data than the setting allows is 413, named by its place; nothing of the call is accepted."""
    with (
        serve(api.database_url, api.redis_url, SPINE_MAX_EVENT_BYTES="2048") as small,
        httpx.Client(base_url=small.url, headers={"Authorization": f"Bearer {org.test.key}"}, trust_env=False) as http,
    ):
        fits = {"type": "order.paid", "data": {"x": "y" * 2040}}
        large = {"type": "order.paid", "data": {"x": "y" * 2041}}
        one = http.post("/v1/events", json=large, headers={"Idempotency-Key": "k"})
        assert (one.status_code, one.json()["code"], one.json()["param"]) == (413, "event_too_large", "data")
        assert http.post("/v1/events", json=fits, headers={"Idempotency-Key": "k"}).status_code == 201
        many = http.post("/v1/events/batch", json={"events": [fits, large]}, headers={"Idempotency-Key": "l"})
        assert (many.status_code, many.json()["param"]) == (413, "events.1.data")
        assert len(http.get("/v1/events").json()["data"]) == 1


@pytest.mark.parametrize(
    "type", ["", "order", "Order.paid", "order.", ".paid", "order..paid", "order paid.x", "a." + "b" * 200]
)
def test_a_type_is_dotted_lower_case_words(type: str, http: httpx.Client) -> None:
    """Anything else is 422, naming `type`."""
    answer = http.post("/v1/events", json={"type": type, "data": {}})
    assert (answer.status_code, answer.json()["param"]) == (422, "type")


def test_the_suites_families_are_its_own(http: httpx.Client) -> None:
    """No caller can speak in the suite's name: 409 `event_type_reserved`, for events and for types (wire.md)."""
    families = {entry["name"].partition(".")[0] for entry in http.get("/v1/events/types").json()["data"]}
    assert {"user", "webhook_endpoint", "delivery", "replay", "event", "api_key"} <= families
    for family in families:
        for path, body in (
            ("/v1/events", {"type": f"{family}.mine", "data": {}}),
            ("/v1/event_types", {"name": f"{family}.mine"}),
        ):
            answer = http.post(path, json=body)
            assert (answer.status_code, answer.json()["code"]) == (409, "event_type_reserved")


def test_the_catalogue_is_true_to_itself(http: httpx.Client) -> None:
    """Each type of the catalogue has a valid schema and an example that fits it (webhooks.md, "The catalogue")."""
    entries = http.get("/v1/events/types").json()["data"]
    assert len(entries) > 15
    for entry in entries:
        jsonschema.Draft202012Validator.check_schema(entry["schema"])
        jsonschema.Draft202012Validator(
            entry["schema"], format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
        ).validate(entry["example"])
        assert entry["description"].endswith(".")


def test_own_types_stand_in_the_catalogue_until_archived(http: httpx.Client) -> None:
    """Registered types are listed with schema and example; an archived one is not."""
    schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer", "minimum": 3}}}
    made = http.post("/v1/event_types", json={"name": "order.paid", "description": "Paid.", "schema": schema}).json()
    own = [entry for entry in http.get("/v1/events/types").json()["data"] if entry["name"] == "order.paid"]
    assert own == [{"name": "order.paid", "version": 1, "description": "Paid.", "schema": schema, "example": {"n": 3}}]
    http.post(f"/v1/event_types/{made['id']}/archive")
    assert "order.paid" not in [entry["name"] for entry in http.get("/v1/events/types").json()["data"]]


SECRET = "the-secret-of-4711"


async def everywhere(api: Api, needle: str) -> list[str]:
    """The tables where a text stands, in clear or as bytes."""
    owner = await asyncpg.connect(api.database_url)
    try:
        tables = [row[0] for row in await owner.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'spine'")]
        return [
            name
            for name in tables
            if await owner.fetchval(
                f"SELECT EXISTS (SELECT FROM spine.{name} t WHERE position($1 in t::text) + position($2 in t::text) > 0)",
                needle,
                needle.encode().hex(),
            )
        ]
    finally:
        await owner.close()


def test_an_erased_payload_is_gone_from_everywhere(http: httpx.Client, api: Api) -> None:
    """From the event, from lists, from stored answers and from the database; the rest of the event stays (promise 7)."""
    key = {"Idempotency-Key": unique_key()}
    body = {"type": "order.paid", "data": {"secret": SECRET}}
    made = http.post("/v1/events", json=body, headers=key).json()
    many = http.post("/v1/events/batch", json={"events": [body, body]}, headers=key | {"Idempotency-Key": "batch"})
    assert asyncio.run(everywhere(api, SECRET)) != []
    for event in [made, *many.json()["data"]]:
        erased = http.post(f"/v1/events/{event['id']}/erase")
        assert erased.status_code == 200
        assert erased.json()["data"] is None
        assert erased.json()["type"] == "order.paid"
        assert datetime.fromisoformat(erased.json()["erased_at"]).tzinfo is not None
    assert asyncio.run(everywhere(api, SECRET)) == []
    assert http.get(f"/v1/events/{made['id']}").json()["data"] is None
    replayed = http.post("/v1/events", json=body, headers=key)
    assert replayed.status_code == 201
    assert replayed.headers["idempotent-replayed"] == "true"
    assert (replayed.json()["id"], replayed.json()["data"]) == (made["id"], None)
    again = http.post("/v1/events/batch", json={"events": [body, body]}, headers={"Idempotency-Key": "batch"})
    assert [event["data"] for event in again.json()["data"]] == [None, None]
    assert SECRET not in http.get("/v1/events", params={"limit": 100}).text


def test_erasing_twice_is_erasing_once(http: httpx.Client) -> None:
    """The second call finds it erased at the first one's time, and tells nobody again."""
    made = accept(http, n=1)
    first = http.post(f"/v1/events/{made['id']}/erase").json()
    second = http.post(f"/v1/events/{made['id']}/erase").json()
    assert first == second
    told = http.get("/v1/events", params={"type": "event.erased"}).json()["data"]
    assert [event["data"]["event_id"] for event in told] == [made["id"]]


def _accept_until_refused(http: httpx.Client) -> httpx.Response:
    for _ in range(200):
        answer = http.post(
            "/v1/events/batch",
            json={"events": [{"type": "order.paid", "data": {}}] * 50},
            headers={"Idempotency-Key": unique_key()},
        )
        if answer.status_code == 429:
            break
        assert answer.status_code == 201
    return answer


def test_a_workspace_with_too_long_a_queue_gets_429(api: Api, org: Organisation) -> None:
    """When more events of a workspace wait than the setting allows, accepting says so, to that workspace only."""
    with (
        serve(api.database_url, api.redis_url, SPINE_MAX_OUTBOX="100") as full,
        client(full.url, org.test.key) as http,
        client(full.url, org.live.key) as other,
    ):
        answer = _accept_until_refused(http)
        assert (answer.status_code, answer.json()["code"]) == (429, "backlog_full")
        assert int(answer.headers["retry-after"]) >= 1
        accept(other, n=1)
        assert _accept_until_refused(http).status_code == 429


def test_too_long_a_queue_of_all_is_429_for_everybody(api: Api, org: Organisation) -> None:
    """When more events of all workspaces wait than the setting allows, accepting says so before anything falls over."""
    with (
        serve(api.database_url, api.redis_url, SPINE_MAX_OUTBOX_TOTAL="100") as full,
        client(full.url, org.test.key) as http,
        client(full.url, org.live.key) as other,
    ):
        for each in (http, other):
            answer = _accept_until_refused(each)
            assert (answer.status_code, answer.json()["code"]) == (429, "backlog_full")
