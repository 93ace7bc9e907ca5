"""Replays as the API starts, counts, pauses and cancels them; the workers walk through them."""

import asyncio
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import asyncpg
import httpx
import pytest

from spine.kernel.database import open_pool
from spine.kernel.settings import WorkSettings
from tests.api import Api, Organisation
from tests.database import owner_connection
from tests.one_of_each import OneOfEach, create_one_of_each
from workers.webhooks.replay import ReplayRunner


@pytest.fixture
def existing(org: Organisation, api: Api) -> OneOfEach:
    """A workspace with one dead and one delivered delivery, of `order.paid`, to one endpoint."""
    return create_one_of_each(org.test, api.database_url)


def total(http: httpx.Client, **filter: Any) -> int:
    """What a dry run counts."""
    answer = http.post("/v1/replays", json={"filter": filter, "dry_run": True})
    assert answer.status_code == 200, answer.text
    assert answer.json().keys() == {"total"}
    count: int = answer.json()["total"]
    return count


def test_a_dry_run_only_counts(http: httpx.Client, existing: OneOfEach) -> None:
    """`{total}` and nothing else: no replay is made, nothing is told (wire.md)."""
    before = http.get("/v1/replays").json()["data"]
    endpoint_id = existing.by_collection["webhook_endpoints"]
    assert total(http) == 1
    assert total(http, status="dead") == 1
    assert total(http, status="delivered") == 1
    assert total(http, endpoint_id=endpoint_id, types=["order.*"]) == 1
    assert total(http, types=["stock.low", "order.sent"]) == 0
    assert total(http, since="2026-01-01T00:00:00Z") == 1
    assert total(http, until="2026-01-01T00:00:00Z") == 0
    assert http.get("/v1/replays").json()["data"] == before


def test_a_replay_is_made_with_its_count(http: httpx.Client, existing: OneOfEach) -> None:
    """201 with Location, the filter as given, and progress that begins at nothing (promise 5)."""
    endpoint_id = existing.by_collection["webhook_endpoints"]
    answer = http.post("/v1/replays", json={"filter": {"endpoint_id": endpoint_id}, "rate_per_s": 5})
    assert answer.status_code == 201
    made = answer.json()
    assert answer.headers["location"] == f"/v1/replays/{made['id']}"
    assert made["status"] == "running"
    assert made["progress"] == {"total": 1, "done": 0, "failed": 0}
    assert (made["rate_per_s"], made["filter"]) == (5, {"endpoint_id": endpoint_id, "status": "dead"})
    assert http.get(f"/v1/replays/{made['id']}").json() == made


def test_a_replay_of_what_is_missing(http: httpx.Client, existing: OneOfEach) -> None:
    """Events of the endpoint's types that it never had a delivery of are counted; its Location is the replay's own."""
    endpoint_id = existing.by_collection["webhook_endpoints"]
    for type in ("order.paid", "order.sent"):
        http.post("/v1/events", json={"type": type, "data": {}})
    path = f"/v1/webhook_endpoints/{endpoint_id}/replay_missing"
    answer = http.post(path, json={"since": "2026-01-01T00:00:00Z"})
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v1/replays/{answer.json()['id']}"
    assert http.get(answer.headers["location"]).json() == answer.json()
    assert answer.json()["kind"] == "missing"
    assert http.post(path, json={}).status_code == 422


MOVES = {
    "running": {"pause": "paused", "cancel": "cancelled"},
    "paused": {"resume": "running", "cancel": "cancelled"},
    "done": {},
    "cancelled": {},
}


@pytest.mark.parametrize("action", ["pause", "resume", "cancel"])
@pytest.mark.parametrize("state", MOVES)
def test_every_move_from_every_state(
    state: str, action: str, http: httpx.Client, api: Api, existing: OneOfEach
) -> None:
    """What the table of states allows happens and is told; anything else is 409 with what is allowed (X5)."""
    id = existing.by_collection["replays"]

    async def set_state() -> None:
        owner = await asyncpg.connect(api.database_url)
        try:
            await owner.execute("UPDATE spine.replays SET status = $2 WHERE id = $1", id, state)
        finally:
            await owner.close()

    asyncio.run(set_state())
    answer = http.post(f"/v1/replays/{id}/{action}")
    told = http.get("/v1/events", params={"type": "replay.updated"}).json()["data"]
    if action in MOVES[state]:
        assert answer.status_code == 200
        assert answer.json()["status"] == MOVES[state][action]
        assert [event["data"]["status"] for event in told] == [MOVES[state][action]]
    else:
        assert (answer.status_code, answer.json()["code"]) == (409, "illegal_transition")
        assert sorted(answer.json()["allowed"]) == sorted(MOVES[state].values())
        assert told == []


async def test_concurrent_moves_have_one_winner(api: Api, org: Organisation, existing: OneOfEach) -> None:
    """Ten pauses at once: one happens, nine are told that it is paused already."""
    async with org.test.async_client() as http:
        answers = await asyncio.gather(
            *(http.post(f"/v1/replays/{existing.by_collection['replays']}/pause") for _ in range(10))
        )
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 9


def test_a_long_history_is_counted_in_the_background(
    http: httpx.Client, api: Api, org: Organisation, existing: OneOfEach, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request counts a bounded number of rows. A dry run says that there are more; a replay counts the rest before it starts."""
    endpoint_id = existing.by_collection["webhook_endpoints"]
    monkeypatch.setattr("spine.webhooks.replays._COUNT_WINDOW", 100)

    async def close() -> None:
        async with owner_connection(api) as owner:
            await owner.execute(
                "INSERT INTO spine.deliveries_closed "
                "(workspace_id, id, event_id, type, endpoint_id, state, series, attempts, accepted_at, created_at, closed_at, xid) "
                "SELECT $1, 'dlv_01M7XZQ13P' || lpad(n::text, 16, '0'), 'evt_' || lpad(n::text, 26, '0'), 'order.paid', $2, 'dead', 1, "
                "'[]', now(), now(), now() - interval '1 h', pg_current_xact_id() FROM generate_series(1, 3000) n",
                org.test.workspace_id,
                endpoint_id,
            )

    asyncio.run(close())
    dry = http.post("/v1/replays", json={"filter": {}, "dry_run": True}).json()
    assert dry == {"total": 1000, "at_least": True}
    made = http.post("/v1/replays", json={"filter": {}}).json()
    assert (made["counted"], made["progress"]["total"], made["error"]) == (False, 1000, None)

    async def count() -> None:
        pool = await open_pool(api.database_url, "spine_worker", "test", 1)
        context: Any = SimpleNamespace(work=WorkSettings(), pool=pool, wakeups=Mock(), wakeup_status=Mock())
        runner = ReplayRunner(context, 700)
        while await runner.run_step():
            pass
        pool.terminate()

    asyncio.run(count())
    counted = http.get(f"/v1/replays/{made['id']}").json()
    assert counted["counted"]
    assert counted["progress"] == {"total": 3001, "done": 0, "failed": 0}
