"""The test clock: it works in test workspaces only, and moves only their own times."""

import asyncio
from typing import Any

import httpx
import pytest

from spine.kernel.redis_client import open_redis
from spine.kernel.wakeups import RESOLUTION_MS, WAKEUP_QUEUE
from tests.api import Api, Organisation
from tests.database import owner_connection


def test_a_live_key_gets_404(live_http: httpx.Client) -> None:
    """With a live key the path does not exist (conventions 2.13)."""
    answer = live_http.post("/v1/test_helpers/clock", json={"advance_s": 1})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("advance_s", [0, -1, 366 * 24 * 3600 + 1, "60", None, True, 1e308])
def test_an_invalid_advance_is_422(advance_s: object, http: httpx.Client) -> None:
    """`advance_s` is a positive number of seconds, up to 366 days."""
    assert http.post("/v1/test_helpers/clock", json={"advance_s": advance_s}).status_code == 422


def test_an_advance_is_returned_and_emitted(http: httpx.Client) -> None:
    """The response and an event hold the seconds of the advance (P-04)."""
    assert http.post("/v1/test_helpers/clock", json={"advance_s": 0.5}).json() == {
        "object": "test_clock",
        "advance_s": 0.5,
    }
    (event,) = http.get("/v1/events", params={"type": "test_clock.*"}).json()["data"]
    assert event["data"]["advance_s"] == 0.5


def test_other_workspaces_do_not_move(http: httpx.Client, api: Api, org: Organisation) -> None:
    """Another workspace's times stay the same."""

    async def times() -> list[Any]:
        query = "SELECT key, expires_at FROM spine.idempotency_keys WHERE workspace_id = $1"
        async with owner_connection(api) as owner:
            return [tuple(row) for row in await owner.fetch(query, org.live.workspace_id)]

    with org.live.client() as live:
        live.post("/v1/users", json={"name": "Ann", "email": "ann@example.com"})
    before = asyncio.run(times())
    http.post("/v1/test_helpers/clock", json={"advance_s": 3600})
    assert asyncio.run(times()) == before
    assert len(before) == 1


async def test_what_becomes_due_later_is_woken_at_its_time(api: Api, org: Organisation) -> None:
    """After a move the wakeups of what is due later are in the queue, each at its new time or just after it."""
    workspace_id = org.test.workspace_id
    async with owner_connection(api) as owner:
        await owner.execute(
            "INSERT INTO spine.sends_open (workspace_id, id, due_at) VALUES ($1, 'msg_x', now() + interval '2 hours')",
            workspace_id,
        )
        await owner.execute(
            "INSERT INTO spine.deliveries_open (workspace_id, id, event_id, type, endpoint_id, due_at, accepted_at) "
            "VALUES ($1, 'dlv_x', 'evt_x', 'a.b', 'whe_x', now() + interval '3 hours', now())",
            workspace_id,
        )
        with org.test.client() as http:
            assert http.post("/v1/test_helpers/clock", json={"advance_s": 7100}).status_code == 200
        for kind, table in (("send", "sends_open"), ("deliver", "deliveries_open")):
            query = f"SELECT extract(epoch FROM due_at)::float8 * 1000 FROM spine.{table} WHERE workspace_id = $1"
            due_ms = await owner.fetchval(query, workspace_id)
            async with asyncio.timeout(20):
                while not (found := await _wakeups(api, kind, due_ms)):  # noqa: ASYNC110  # Redis tells nobody
                    await asyncio.sleep(0.02)
            assert len(found) == 1


async def _wakeups(api: Api, kind: str, due_ms: float) -> list[str]:
    """The wakeups of this kind at this time, or up to two steps of the resolution after it."""
    redis = open_redis(api.redis_url)
    found: list[bytes] = await redis.zrangebyscore(WAKEUP_QUEUE, due_ms, due_ms + 2 * RESOLUTION_MS)
    await redis.aclose()
    return [id.decode() for id in found if id.startswith(kind.encode())]
