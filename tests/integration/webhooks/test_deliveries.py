"""Deliveries and dead letters as the API shows them, and the replay of one."""

import asyncio
import json
from typing import Any

import asyncpg
import httpx

from spine.kernel import ids
from tests.api import Account, Api, Organisation
from tests.one_of_each import create_one_of_each

ATTEMPT = {
    "number": 1,
    "series": 1,
    "started_at": "2026-01-02T03:04:05Z",
    "ended_at": "2026-01-02T03:04:06Z",
    "status_code": 500,
    "error": "http_status",
    "response_body": "sorry",
    "retry_after_s": None,
    "next_attempt_at": "2026-01-02T03:04:07Z",
}


def put(api: Api, account: Account, event_id: str, endpoint_id: str, state: str, **more: Any) -> str:
    """A delivery as the workers leave it."""
    id = ids.mint("dlv")
    row = {
        "workspace_id": account.workspace_id, "id": id, "event_id": event_id, "type": "order.paid",
        "endpoint_id": endpoint_id, "state": state, "series": 1, "attempts": [ATTEMPT], **more,
    }  # fmt: skip
    closed = state in ("dead", "delivered")
    table = "deliveries_closed" if closed else "deliveries_open"
    if not closed and state != "held":
        row["due_at"] = "2026-01-02T03:04:07Z"
    columns = ", ".join(row)
    times = ", accepted_at, created_at" + (", xid" if closed else "")
    now = ", now(), now()" + (", pg_current_xact_id()" if closed else "")

    async def execute() -> None:
        owner = await asyncpg.connect(api.database_url)
        try:
            await owner.execute(
                f"INSERT INTO spine.{table} ({columns}{times}) SELECT {columns}{now} "
                f"FROM jsonb_populate_record(NULL::spine.{table}, $1::jsonb)",
                json.dumps(row),
            )
        finally:
            await owner.close()

    asyncio.run(execute())
    return id


def pair(http: httpx.Client) -> tuple[str, str]:
    """An endpoint and an event."""
    endpoint = http.post("/v1/webhook_endpoints", json={"url": "http://127.0.0.1:9/", "events": ["order.paid"]}).json()
    event = http.post("/v1/events", json={"type": "order.paid", "data": {}}).json()
    return endpoint["id"], event["id"]


def test_a_delivery_shows_its_attempts(http: httpx.Client, api: Api, org: Organisation) -> None:
    """Number, times, status, error, the body's beginning and when the next one comes (products 3.0)."""
    endpoint_id, event_id = pair(http)
    id = put(api, org.test, event_id, endpoint_id, "retrying")
    shown = http.get(f"/v1/deliveries/{id}").json()
    assert shown["status"] == "retrying"
    assert shown["next_attempt_at"] == "2026-01-02T03:04:07Z"
    assert shown["attempts"] == [ATTEMPT]
    assert (shown["event_id"], shown["endpoint_id"], shown["event_type"]) == (event_id, endpoint_id, "order.paid")


def test_filters_find_what_they_name(http: httpx.Client, api: Api, org: Organisation) -> None:
    """By endpoint, event and status, in any combination, over what is open and what has ended."""
    endpoint_id, event_id = pair(http)
    other_endpoint, other_event = pair(http)
    made = {
        state: put(api, org.test, event_id, endpoint_id, state)
        for state in ("pending", "retrying", "held", "dead", "delivered")
    }
    put(api, org.test, other_event, other_endpoint, "dead")
    for state, id in made.items():
        found = http.get("/v1/deliveries", params={"status": state, "endpoint_id": endpoint_id}).json()["data"]
        assert [(row["id"], row["status"]) for row in found] == [(id, state)]
    by_event = http.get("/v1/deliveries", params={"event_id": event_id}).json()["data"]
    assert [row["id"] for row in by_event] == sorted(made.values(), reverse=True)
    assert http.get("/v1/deliveries", params={"event_id": event_id, "endpoint_id": other_endpoint}).json()["data"] == []
    assert http.get("/v1/deliveries", params={"status": "lost"}).status_code == 422


def test_a_dead_letter_says_why(http: httpx.Client, api: Api, org: Organisation) -> None:
    """The last status, error and body, the reason, and when it died; only what is dead is a dead letter (P-19)."""
    endpoint_id, event_id = pair(http)
    id = put(api, org.test, event_id, endpoint_id, "dead", reason="attempts_exhausted")
    delivered = put(api, org.test, event_id, endpoint_id, "delivered")
    letter = http.get(f"/v1/dead_letters/{id}").json()
    assert letter["died_at"]
    assert {name: letter[name] for name in ("object", "delivery_id", "reason", "last_status_code", "last_error",
                                            "last_response_body", "attempts")} == {
        "object": "dead_letter", "delivery_id": id, "reason": "attempts_exhausted", "last_status_code": 500,
        "last_error": "http_status", "last_response_body": "sorry", "attempts": 1,
    }  # fmt: skip
    assert http.get("/v1/dead_letters").json()["data"] == [letter]
    assert http.get(f"/v1/dead_letters/{delivered}").status_code == 404
    for query, there in (
        ({"type": "order.*"}, True),
        ({"type": "stock.*"}, False),
        ({"since": "2026-01-01T00:00:00Z"}, True),
        ({"until": "2026-01-01T00:00:00Z"}, False),
        ({"endpoint_id": endpoint_id}, True),
    ):
        found = http.get("/v1/dead_letters", params=query).json()["data"]
        assert [row["id"] for row in found] == ([id] if there else []), query


def test_a_traversal_outlives_moves_between_the_tables(http: httpx.Client, api: Api, org: Organisation) -> None:
    """A delivery that is put back while its list is read comes neither twice nor never (P-12)."""
    endpoint_id, event_id = pair(http)
    made = [put(api, org.test, event_id, endpoint_id, "dead", reason="x") for _ in range(6)]
    seen: list[str] = []
    cursor: dict[str, str] = {}
    for n in range(6):
        page = http.get("/v1/deliveries", params={"limit": "1", **cursor}).json()
        seen += [row["id"] for row in page["data"]]
        cursor = {"cursor": page["next_cursor"]} if page["next_cursor"] else {}
        assert http.post(f"/v1/deliveries/{made[n]}/replay").status_code == 200
    assert seen == made[::-1]
    assert not cursor


def test_a_replayed_delivery_is_pending_in_a_new_series(http: httpx.Client, api: Api, org: Organisation) -> None:
    """Dead and delivered ones go back to the queue with their history; what is on its way is 409 (P-19)."""
    endpoint_id, event_id = pair(http)
    for state in ("dead", "delivered"):
        id = put(api, org.test, event_id, endpoint_id, state)
        back = http.post(f"/v1/deliveries/{id}/replay").json()
        assert (back["id"], back["status"], back["series"], back["attempts"]) == (id, "pending", 2, [ATTEMPT])
        again = http.post(f"/v1/deliveries/{id}/replay")
        assert (again.status_code, again.json()["code"]) == (409, "illegal_transition")
    told = http.get("/v1/events", params={"type": "delivery.replayed"}).json()["data"]
    assert [event["data"]["series"] for event in told] == [2, 2]


async def test_replaying_twice_at_once_is_one_more_series(api: Api, org: Organisation) -> None:
    """Of concurrent replays of one delivery one wins and the rest are 409 (wire.md)."""
    existing = await asyncio.to_thread(create_one_of_each, org.test, api.database_url)
    async with org.test.async_client() as http:
        path = f"/v1/deliveries/{existing.by_collection['deliveries']}"
        answers = await asyncio.gather(*(http.post(f"{path}/replay") for _ in range(8)))
        assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7
        assert (await http.get(path)).json()["series"] == 2


def test_what_cannot_be_delivered_again_is_422(http: httpx.Client, api: Api, org: Organisation) -> None:
    """Without its endpoint or its payload a delivery is not replayed, and the reason is told."""
    endpoint_id, event_id = pair(http)
    id = put(api, org.test, event_id, endpoint_id, "dead")
    http.post(f"/v1/events/{event_id}/erase")
    gone = http.post(f"/v1/deliveries/{id}/replay")
    assert (gone.status_code, gone.json()["code"]) == (422, "payload_gone")
    http.delete(f"/v1/webhook_endpoints/{endpoint_id}")
    deleted = http.post(f"/v1/deliveries/{id}/replay")
    assert (deleted.status_code, deleted.json()["code"]) == (422, "endpoint_deleted")
