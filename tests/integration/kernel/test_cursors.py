"""Cursors while others write: a list shows each row of its snapshot once, and the feed loses no event."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import asyncpg
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spine.kernel import ids
from spine.webhooks.accept import event_json
from tests.api import Account, Api, Organisation
from tests.one_of_each import create_one_of_each


async def connect(api: Api) -> "asyncpg.Connection[asyncpg.Record]":
    """Connect as the database's owner."""
    return await asyncpg.connect(api.database_url)


async def put_event(connection: "asyncpg.Connection[asyncpg.Record]", account: Account, id: str | None = None) -> str:
    """Insert an event as the accept path does, in the connection's open transaction."""
    id = id or ids.mint("evt")
    body = b'{"id":"%s","type":"order.paid","timestamp":"2026-01-02T03:04:05Z","data":{}}' % id.encode()
    assert event_json(body)
    await connection.execute(
        "INSERT INTO spine.events (workspace_id, id, type, body) VALUES ($1, $2, 'order.paid', $3)",
        account.workspace_id,
        id,
        body,
    )
    return id


async def put_user(connection: "asyncpg.Connection[asyncpg.Record]", account: Account) -> str:
    """Insert a user in the connection's open transaction."""
    id = ids.mint("usr")
    await connection.execute(
        "INSERT INTO spine.users (workspace_id, id, name, email) VALUES ($1, $2, 'x', $2)", account.workspace_id, id
    )
    return id


async def pages(
    http: httpx.AsyncClient, path: str, limit: int, cursor: str | None = None
) -> AsyncIterator[dict[str, Any]]:
    """The pages of a traversal, from a cursor to the last page."""
    while True:
        parameters: dict[str, Any] = {"limit": limit} | ({"cursor": cursor} if cursor else {})
        answer = await http.get(path, params=parameters)
        assert answer.status_code == 200, answer.text
        page: dict[str, Any] = answer.json()
        yield page
        cursor = page["next_cursor"]
        if not page["has_more"]:
            return


simulated = settings(
    max_examples=8, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
seeded = given(seed=st.integers(0, 2**32), limit=st.integers(1, 7))


@simulated
@seeded
async def test_newest_first_lists_show_each_row_once(api: Api, seed: int, limit: int) -> None:
    """Rows of the first page's snapshot are listed exactly once, despite late commits and deletes; newer rows never (P-12)."""
    random = Random(seed)
    account = api.sign_up().test
    owner = await connect(api)
    late = [await connect(api) for _ in range(3)]
    transactions = [connection.transaction() for connection in late]
    for transaction in transactions:
        await transaction.start()
    hidden = [await put_user(connection, account) for connection in late]  # smaller ids, not committed yet
    visible = [await put_user(owner, account) for _ in range(20)]
    deleted: set[str] = set()
    seen: list[str] = []
    async with account.async_client() as http:
        async for page in pages(http, "/v1/users", limit):
            seen += [row["id"] for row in page["data"]]
            await put_user(owner, account)
            if transactions and random.random() < 0.5:
                await transactions.pop().commit()
            if random.random() < 0.5:
                victim = random.choice(visible)
                await owner.execute("DELETE FROM spine.users WHERE id = $1", victim)
                deleted.add(victim)
    for transaction in transactions:
        await transaction.rollback()
    for connection in (owner, *late):
        await connection.close()
    assert max(Counter(seen).values()) == 1
    assert seen == sorted(seen, reverse=True)
    assert set(visible) - deleted <= set(seen) <= set(visible)
    assert not set(seen) & set(hidden)


class Writers:
    """Transactions that insert an event each, stay open for a while, and then commit or roll back."""

    def __init__(self, api: Api, account: Account, random: Random) -> None:
        self._api, self._account, self._random = api, account, random
        self._open: list[tuple[Any, str]] = []
        self.committed: set[str] = set()

    async def step(self) -> None:
        """Begin or end one transaction."""
        if self._open and self._random.random() < 0.5:
            await self._end(self._random.randrange(len(self._open)))
        elif len(self._open) < 6:
            connection = await connect(self._api)
            await connection.execute("BEGIN")
            self._open.append((connection, await put_event(connection, self._account)))

    async def end_all(self) -> None:
        """End all transactions."""
        while self._open:
            await self._end(0)

    async def _end(self, n: int) -> None:
        connection, id = self._open.pop(n)
        commits = self._random.random() < 0.8
        await connection.execute("COMMIT" if commits else "ROLLBACK")
        if commits:
            self.committed.add(id)
        await connection.close()


@simulated
@seeded
async def test_the_feed_never_loses_a_late_commit(api: Api, seed: int, limit: int) -> None:
    """A poller that continues from its cursor gets every committed event exactly once, in any order of commits (P-12)."""
    random = Random(seed)
    account = api.sign_up().test
    writers = Writers(api, account, random)
    seen: list[str] = []
    cursor: str | None = None

    async def poll(http: httpx.AsyncClient, busy: float) -> None:
        nonlocal cursor
        async for page in pages(http, "/v1/events", limit, cursor):
            seen.extend(row["id"] for row in page["data"])
            cursor = page["next_cursor"] or cursor
            if random.random() < busy:
                await writers.step()

    async with account.async_client() as http:
        for _ in range(30):
            await writers.step()
            if random.random() < 0.3:
                await poll(http, busy=0.4)
        await writers.end_all()
        await poll(http, busy=0)
    assert Counter(seen) == Counter(writers.committed)


async def test_the_feed_orders_transactions_as_numbers(api: Api, org: Organisation) -> None:
    """Transaction 999 comes before 1000, and no event is skipped between them: the order is numeric, not textual."""
    owner = await connect(api)
    made = [await put_event(owner, org.test) for _ in range(4)]
    for id, xid in zip(made, ("999", "1000", "99", "100"), strict=True):
        await owner.execute("UPDATE spine.events SET xid = $2::text::xid8 WHERE id = $1", id, xid)
    await owner.close()
    async with org.test.async_client() as http:
        seen = [row["id"] async for page in pages(http, "/v1/events", 1) for row in page["data"]]
    assert seen == [made[2], made[3], made[0], made[1]]


async def test_a_caller_reads_its_own_write(org: Organisation) -> None:
    """A list that is read after a 201 holds the new object, also while others write (P-27)."""
    async with org.test.async_client() as http:

        async def write_then_read(n: int) -> bool:
            made = (await http.post("/v1/users", json={"name": "x", "email": f"u{n}@example.com"})).json()
            listed = (await http.get("/v1/users", params={"limit": 100})).json()
            one = await http.get(f"/v1/users/{made['id']}")
            return one.status_code == 200 and made["id"] in [row["id"] for row in listed["data"]]

        assert all(await asyncio.gather(*(write_then_read(n) for n in range(60))))


LISTS: dict[str, dict[str, str]] = {
    "/v1/users": {},
    "/v1/api_keys": {},
    "/v1/webhook_endpoints": {},
    "/v1/event_types": {},
    "/v1/events": {"type": "order.*"},
    "/v1/deliveries": {"status": "dead"},
    "/v1/dead_letters": {"type": "order.*"},
    "/v1/replays": {},
}


@pytest.mark.parametrize("path", LISTS)
def test_a_cursor_is_valid_for_its_own_list_only(path: str, api: Api, org: Organisation) -> None:
    """A cursor of another workspace, list or filter, or a changed one, is 400 `invalid_cursor` with one text."""
    for _ in range(2):
        create_one_of_each(org.test, api.database_url)
    with org.test.client() as http, org.live.client() as elsewhere:
        cursor = http.get(path, params={"limit": "1"} | LISTS[path]).json()["next_cursor"]
        assert cursor
        assert http.get(path, params={"cursor": cursor} | LISTS[path]).status_code == 200
        other = "/v1/users" if path != "/v1/users" else "/v1/events"
        refused = [
            elsewhere.get(path, params={"cursor": cursor} | LISTS[path]),
            http.get(other, params={"cursor": cursor}),
            http.get(path, params={"cursor": cursor[::-1]} | LISTS[path]),
        ]
        if LISTS[path]:
            refused.append(http.get(path, params={"cursor": cursor}))
    for answer in refused:
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor"), answer.request.url
    assert len({answer.json()["detail"] for answer in refused}) == 1


async def test_a_cursor_stays_short_while_many_write(api: Api, org: Organisation) -> None:
    """With 60 transactions in flight, a cursor of the feed has less than 1500 characters."""
    writers = [await connect(api) for _ in range(60)]
    for connection in writers:
        await connection.execute("BEGIN")
        await put_user(connection, org.test)
    async with org.test.async_client() as http:
        for n in range(3):
            await http.post("/v1/events", json={"type": "order.paid", "data": {"n": n}})
        first = (await http.get("/v1/events", params={"limit": 3})).json()
        for n in range(3):
            await http.post("/v1/events", json={"type": "order.paid", "data": {"n": n}})
        second = (await http.get("/v1/events", params={"limit": 1, "cursor": first["next_cursor"]})).json()
        assert len(second["next_cursor"]) < 1500
        third = await http.get("/v1/events", params={"cursor": second["next_cursor"]})
        assert len(third.json()["data"]) == 2
    for connection in writers:
        await connection.close()
