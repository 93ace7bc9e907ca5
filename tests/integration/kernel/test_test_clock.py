"""The test clock: for test workspaces only, and only what is to come moves."""

import asyncio
from typing import Any

import asyncpg
import httpx
import pytest

from tests.api import Api, Organisation


def test_a_live_key_gets_404(live_http: httpx.Client) -> None:
    """There is no such path for a live workspace (conventions 2.13)."""
    answer = live_http.post("/v1/test_helpers/clock", json={"advance_s": 1})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("advance_s", [0, -1, 366 * 24 * 3600 + 1, "60", None, True, 1e308])
def test_only_forward_and_not_too_far(advance_s: object, http: httpx.Client) -> None:
    """A move is a number of seconds, up to a year."""
    assert http.post("/v1/test_helpers/clock", json={"advance_s": advance_s}).status_code == 422


def test_a_move_is_told(http: httpx.Client) -> None:
    """The answer says how far; an event says so too (P-04)."""
    assert http.post("/v1/test_helpers/clock", json={"advance_s": 0.5}).json() == {
        "object": "test_clock",
        "advance_s": 0.5,
    }
    (event,) = http.get("/v1/events", params={"type": "test_clock.*"}).json()["data"]
    assert event["data"]["advance_s"] == 0.5


def test_nobody_elses_clock_moves(http: httpx.Client, api: Api, org: Organisation) -> None:
    """Another workspace's times stay where they were."""

    async def times() -> list[Any]:
        owner = await asyncpg.connect(api.database_url)
        try:
            return [
                tuple(row)
                for row in await owner.fetch(
                    "SELECT key, expires_at FROM spine.idempotency_keys WHERE workspace_id = $1", org.live.workspace_id
                )
            ]
        finally:
            await owner.close()

    with org.live.client() as live:
        live.post("/v1/users", json={"name": "Ann", "email": "ann@example.com"})
    before = asyncio.run(times())
    http.post("/v1/test_helpers/clock", json={"advance_s": 3600})
    assert asyncio.run(times()) == before
    assert len(before) == 1
