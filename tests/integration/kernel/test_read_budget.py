"""The budget of reads: a page looks at few rows, and one workspace's reads leave connections for the others."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from spine.kernel import ids
from tests.api import Account, Api, Organisation, client, serve
from tests.database import owner_connection

SCAN = 100


@pytest.fixture(scope="module")
def api(module_database: str, module_redis_url: str) -> Iterator[Api]:
    """An API whose pages look at 100 rows, with two reads of a workspace at the same time and four connections."""
    limits = {"SPINE_MAX_SCAN": str(SCAN), "SPINE_MAX_READS": "2", "SPINE_DATABASE_POOL_SIZE": "4"}
    with serve(module_database, module_redis_url, **limits) as running:
        yield running


def walk(http: httpx.Client, path: str, **params: Any) -> list[dict[str, Any]]:
    """All pages of a traversal."""
    pages: list[dict[str, Any]] = []
    while not pages or pages[-1]["has_more"]:
        cursor = {"cursor": pages[-1]["next_cursor"]} if pages else {}
        answer = http.get(path, params=params | cursor)
        assert answer.status_code == 200, answer.text
        pages.append(answer.json())
        assert len(pages) < 300
    return pages


def put_events(http: httpx.Client, types: list[str]) -> list[str]:
    """Send events of these types. Returns their ids."""
    answer = http.post("/v1/events/batch", json={"events": [{"type": type, "data": {}} for type in types]})
    assert answer.status_code == 201, answer.text
    return [event["id"] for event in answer.json()["data"]]


def test_a_feed_without_a_match_hands_on_a_cursor(http: httpx.Client) -> None:
    """250 events of other types are three pages without rows. The last cursor waits for later events and finds the next."""
    put_events(http, ["order.paid"] * 250)
    pages = walk(http, "/v1/events", type="never.seen")
    assert [(page["data"], page["has_more"]) for page in pages] == [([], True), ([], True), ([], False)]
    (late,) = put_events(http, ["never.seen"])
    found = http.get("/v1/events", params={"type": "never.seen", "cursor": pages[-1]["next_cursor"]}).json()
    assert [event["id"] for event in found["data"]] == [late]


@pytest.mark.parametrize("limit", [1, 7, 100])
def test_a_filtered_feed_shows_every_match_once(limit: int, http: httpx.Client) -> None:
    """Whatever the page ends at, its limit or the last row it may look at, all matches come once and in their order."""
    types = ["order.rare" if n % 37 in (0, 1) or n > 270 else "order.paid" for n in range(300)]
    sent = put_events(http, types)
    rare = [id for id, type in zip(sent, types, strict=True) if type == "order.rare"]
    pages = walk(http, "/v1/events", type="order.rare", limit=limit)
    assert [event["id"] for page in pages for event in page["data"]] == rare


async def put_deliveries(api: Api, account: Account, count: int) -> list[tuple[str, str, str]]:
    """Insert deliveries, every fifth of them open. Returns (id, event id, state) of each, newest first."""
    made = []
    async with owner_connection(api) as owner:
        for n in range(count):
            id, event = ids.mint("dlv"), f"evt_{n // 3:026}"
            state = "pending" if n % 5 == 0 else "dead" if n % 29 == 0 else "delivered"
            table, more = ("deliveries_open", {"due_at": "now()"})
            if state != "pending":
                table = "deliveries_closed"
                more = {
                    "series": "1",
                    "attempts": "'[]'",
                    "created_at": "now()",
                    "xid": "pg_current_xact_id()",
                    "reason": "'refused'",
                }
            await owner.execute(
                f"INSERT INTO spine.{table} (workspace_id, id, event_id, type, endpoint_id, state, accepted_at, {', '.join(more)}) "
                f"VALUES ($1, $2, $3, 'order.paid', $4, $5, now(), {', '.join(more.values())})",
                account.workspace_id, id, event, f"whe_{n % 2:026}", state,
            )  # fmt: skip
            made.append((id, event, state))
    return made[::-1]


@pytest.mark.parametrize("limit", [3, 100])
async def test_filtered_deliveries_are_shown_once(limit: int, api: Api) -> None:
    """Open and closed deliveries, by status, endpoint and event: each list is complete and in order, over many scans."""
    account = (await asyncio.to_thread(api.sign_up)).test
    made = await put_deliveries(api, account, 600)
    wanted: dict[str, list[str]] = {
        "status=pending": [id for id, _, state in made if state == "pending"],
        "status=dead": [id for id, _, state in made if state == "dead"],
        "status=held": [],
        f"endpoint_id=whe_{1:026}&status=delivered": [
            id for n, (id, _, state) in enumerate(made) if n % 2 == 0 and state == "delivered"
        ],
        f"event_id=evt_{7:026}": [id for id, event, _ in made if event == f"evt_{7:026}"],
        "": [id for id, *_ in made],
    }
    with account.client() as http:
        for query, expected in wanted.items():
            pages = await asyncio.to_thread(walk, http, "/v1/deliveries", limit=limit, **dict(httpx.QueryParams(query)))
            assert [one["id"] for page in pages for one in page["data"]] == expected, query
        dead = await asyncio.to_thread(walk, http, "/v1/dead_letters", limit=limit, endpoint_id=f"whe_{0:026}")
    expected = [id for n, (id, _, state) in enumerate(made) if n % 2 == 1 and state == "dead"]
    assert [one["id"] for page in dead for one in page["data"]] == expected


def test_deleted_endpoints_do_not_make_a_list_long(http: httpx.Client, api: Api, org: Organisation) -> None:
    """Behind 2 x 100 deleted endpoints the list of endpoints goes on, page by page, to the one that is left."""
    body = {"url": "http://127.0.0.1:9/", "events": ["*"]}
    left = http.post("/v1/webhook_endpoints", json=body).json()

    async def put_deleted() -> None:
        async with owner_connection(api) as owner:
            await owner.executemany(
                "INSERT INTO spine.webhook_endpoints (workspace_id, id, url, events, max_in_flight, deleted_at) "
                "VALUES ($1, $2, 'http://x', '{*}', 1, now())",
                [(org.test.workspace_id, ids.mint("whe")) for _ in range(2 * SCAN)],
            )

    asyncio.run(put_deleted())
    pages = walk(http, "/v1/webhook_endpoints", limit=10)
    assert [len(page["data"]) for page in pages] == [0, 0, 1]
    assert pages[-1]["data"][0]["id"] == left["id"]


async def test_reads_of_one_workspace_leave_connections_for_the_others(api: Api) -> None:
    """30 reads of one workspace that wait for a lock hold two of four connections: another workspace reads and writes."""
    busy, quiet = [(await asyncio.to_thread(api.sign_up)).test for _ in range(2)]
    async with (
        owner_connection(api) as owner,
        httpx.AsyncClient(base_url=api.url, headers={"Authorization": f"Bearer {busy.key}"}, timeout=30) as hurter,
        httpx.AsyncClient(base_url=api.url, headers={"Authorization": f"Bearer {quiet.key}"}, timeout=30) as other,
    ):
        async with owner.transaction():
            await owner.execute("LOCK TABLE spine.users IN ACCESS EXCLUSIVE MODE")
            reads = [asyncio.create_task(hurter.get("/v1/users")) for _ in range(30)]
            while await owner.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") < 2:  # noqa: ASYNC110  # a count in Postgres
                await asyncio.sleep(0.01)
            for _ in range(5):
                assert (await other.get("/v1/webhook_endpoints")).status_code == 200
            assert await owner.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") == 2
        assert {answer.status_code for answer in await asyncio.gather(*reads)} == {200}


def test_a_long_read_ends(api: Api, database: str, redis_url: str) -> None:
    """A read that takes longer than its timeout is answered with 503, and its statement ends in the database."""
    with serve(database, redis_url, SPINE_READ_TIMEOUT_S="0.05") as short:
        account = short.sign_up().test

        async def locked() -> int:
            async with owner_connection(short) as owner, owner.transaction():
                await owner.execute("LOCK TABLE spine.users IN ACCESS EXCLUSIVE MODE")
                with client(short.url, account.key) as http:
                    status = (await asyncio.to_thread(http.get, "/v1/users")).status_code
                assert await owner.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") == 0
                return status

        assert asyncio.run(locked()) == 503
