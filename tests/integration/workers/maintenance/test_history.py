"""Retention of rows without partitions: what has ended is deleted in bounded batches, and nothing else is."""

import re
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from spine.kernel.database import open_pool
from tests.api import Api, Organisation
from tests.database import owner_connection
from workers.maintenance.history import (
    HISTORIES,
    MESSAGE_PARTS,
    MESSAGES,
    MESSAGES_DELETE,
    MESSAGES_PAST,
    RECIPIENT_PACES_DELETE,
    SANDBOX_RECEIPTS_DELETE,
    WORKSPACES,
    Retention,
)
from workers.maintenance.lease import Lease

RETENTION = timedelta(days=30)
MOVED = ("messages", "attempts", "receipts", "sandbox_calls", "timeline_entries", "replays")
"""The tables of a workspace with history."""

# A message and what belongs to it, `$2` of them, created `$3` days ago. `$4`: whether it has ended.
FILL = """
    WITH m AS (
        SELECT n, spine.ulid_time(now() - make_interval(days => $3)) || to_char(n, 'FM0000000000000000') AS ulid,
               now() - make_interval(days => $3) AS at
          FROM generate_series($5::bigint, $5::bigint + $2 - 1) AS n
    ), account AS (
        SELECT id FROM spine.provider_accounts WHERE workspace_id = $1 ORDER BY id LIMIT 1
    ), message AS (
        INSERT INTO spine.messages (workspace_id, id, addresses, template_id, template, template_version, locale, category, vars,
            policy, status, deadline_at, ended_at, request_id, created_at, updated_at)
        SELECT $1, 'msg_' || ulid, '{}', 'tpl_x', 'x', 1, 'en', 'transactional', '{}', '{"steps": []}',
               CASE WHEN $4 THEN 'delivered' ELSE 'sent' END, at, CASE WHEN $4 THEN at END, 'req_x', at, at FROM m
    ), attempt AS (
        INSERT INTO spine.attempts (workspace_id, id, message_id, step, number, channel, provider, provider_account_id, receipts,
            state, started_at)
        SELECT $1, 'att_' || ulid, 'msg_' || ulid, 0, 1, 'sms', 'sandbox', account.id, true, 'sent', at FROM m, account
    ), entry AS (
        INSERT INTO spine.timeline_entries (workspace_id, id, subject_id, kind, actor, request_id, at)
        SELECT $1, 'tme_' || left(ulid, 11) || k || right(ulid, 14), CASE WHEN k < 3 THEN 'msg_' || ulid ELSE 'ctc_x' END, 'x',
               '{"type": "system", "id": "spine"}', 'req_x', at
          FROM m CROSS JOIN generate_series(1, 3) AS k
    ), receipt AS (
        INSERT INTO spine.receipts (workspace_id, id, provider_account_id, attempt_id, provider_message_id, status, reported_at,
            received_at, raw)
        SELECT $1, 'rct_' || left(ulid, 11) || k || right(ulid, 14), account.id, CASE WHEN k = 1 THEN 'att_' || ulid END, ulid, k::text, '',
               at, '{}'
          FROM m CROSS JOIN account CROSS JOIN generate_series(1, 2) AS k
    ), call AS (
        INSERT INTO spine.sandbox_calls (workspace_id, attempt_id, provider_message_id, taken_at)
        SELECT $1, 'att_' || ulid, ulid, at FROM m
    )
    INSERT INTO spine.replays (workspace_id, id, kind, filter, status, total, upto, created_at, updated_at)
    SELECT $1, 'rpl_' || ulid, 'closed', '{}', CASE WHEN $4 THEN 'done' ELSE 'paused' END, 0, '', at, at FROM m
"""


class Counting:
    """A connection that records what each statement deleted or returned, as `n rows` by its text."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.rows: list[tuple[str, int]] = []

    async def execute(self, statement: str, *args: object) -> str:
        """Run a statement."""
        status: str = await self._connection.execute(statement, *args)
        self.rows.append((statement, int(status.rpartition(" ")[2])))
        return status

    async def fetch(self, statement: str, *args: object) -> Any:
        """Run a query."""
        rows = await self._connection.fetch(statement, *args)
        self.rows.append((statement, len(rows)))
        return rows

    async def fetchrow(self, statement: str, *args: object) -> Any:
        """Run a statement that returns what it looked at and deleted."""
        row = await self._connection.fetchrow(statement, *args)
        if row is not None:
            self.rows.append((statement, row["seen"]))
            self.rows.append((statement, row["deleted"]))
        return row


@pytest.fixture
async def workers(api: Api) -> AsyncIterator[Any]:
    """A pool of the worker role, with the settings of the product."""
    pool = await open_pool(api.database_url, "spine_worker", "tests", 3)
    try:
        yield pool
    finally:
        await pool.close()


async def fill(api: Api, workspace_id: str, count: int, days: int, *, ended: bool, first: int = 1) -> None:
    """Insert messages with everything that belongs to them, made so many days ago."""
    async with owner_connection(api) as owner:
        await owner.execute(FILL, workspace_id, count, days, ended, first)


async def counts(api: Api, workspace_id: str) -> Counter[str]:
    """The rows of each table of history of a workspace."""
    async with owner_connection(api) as owner:
        return Counter(
            {
                table: await owner.fetchval(f"SELECT count(*) FROM spine.{table} WHERE workspace_id = $1", workspace_id)
                for table in MOVED
            }
        )


async def test_ended_rows_past_the_retention_vanish_in_batches(api: Api, org: Organisation, workers: Any) -> None:
    """Of two workspaces, what ended longer ago than the retention goes. What is younger, or has not ended, stays.

    No statement looks at or deletes more rows than its batch.
    """
    async with org.test.async_client() as http:
        contact = (await http.post("/crm/v1/contacts", json={"name": "Meera"})).json()["id"]
    live = org.live.workspace_id
    async with owner_connection(api) as owner:
        await owner.execute(
            "INSERT INTO spine.provider_accounts (workspace_id, id, env, name, channel, kind, priority, weight) "
            "VALUES ($1, 'pac_x', 'live', 'x', 'sms', 'http', 1, 1)",
            live,
        )
    for workspace_id in (org.test.workspace_id, live):
        before = await counts(api, workspace_id)
        await fill(api, workspace_id, 25, 40, ended=True)
        await fill(api, workspace_id, 3, 40, ended=False, first=500)
        await fill(api, workspace_id, 4, 20, ended=True)
        assert (await counts(api, workspace_id))["messages"] == before["messages"] + 32
    async with workers.acquire() as connection:
        counting = Counting(connection)
        await Retention(Lease(workers, "maintenance", "test", 30), RETENTION, batch=10).delete(counting)  # type: ignore[arg-type]
    assert max(rows for _, rows in counting.rows) == 10
    assert len(counting.rows) > 30
    for workspace_id in (org.test.workspace_id, live):
        left = await counts(api, workspace_id)
        assert left["messages"] == 3 + 4
        assert left["attempts"] == 3 + 4
        assert left["replays"] == 3 + 4
        assert left["sandbox_calls"] == 3 + 4
        assert left["receipts"] == 3 + 2 * 4  # parked ones go by their age
    async with owner_connection(api) as owner:
        entries = await owner.fetch(
            "SELECT subject_id, count(*) AS count FROM spine.timeline_entries WHERE workspace_id = $1 GROUP BY 1", live
        )
    assert {row["count"] for row in entries if row["subject_id"].startswith("msg_")} == {2}
    assert len(entries) == 3 + 4 + 1
    assert sum(row["count"] for row in entries if row["subject_id"] == "ctc_x") == 4
    async with org.test.async_client() as http:
        assert (await http.get(f"/crm/v1/contacts/{contact}")).status_code == 200


async def test_the_api_shows_a_removed_message_no_more(api: Api, org: Organisation, workers: Any) -> None:
    """A removed message and its audit are 404, and a list that is under way skips and repeats nothing that stays."""
    await fill(api, org.test.workspace_id, 4, 20, ended=True)
    await fill(api, org.test.workspace_id, 4, 40, ended=True, first=100)
    path = "/notifications/v1/messages"
    old = (await _ids(api, org.test.workspace_id, 30))[0]
    async with org.test.async_client() as http:
        assert (await http.get(f"{path}/{old}/audit")).status_code == 200
        page = (await http.get(f"{path}?limit=3")).json()
        await Retention(Lease(workers, "maintenance", "test", 30), RETENTION).delete(workers)
        for gone in (f"{path}/{old}", f"{path}/{old}/audit"):
            assert (await http.get(gone)).status_code == 404
        listed = [row["id"] for row in page["data"]]
        while page["has_more"]:
            page = (await http.get(f"{path}?limit=3&cursor={page['next_cursor']}")).json()
            listed += [row["id"] for row in page["data"]]
    kept = await _ids(api, org.test.workspace_id, 0)
    assert len(kept) == 4
    assert [id for id in sorted(listed) if id in kept] == kept


async def _ids(api: Api, workspace_id: str, older_than_days: int) -> list[str]:
    async with owner_connection(api) as owner:
        rows = await owner.fetch(
            "SELECT id FROM spine.messages WHERE workspace_id = $1 AND created_at < now() - make_interval(days => $2) ORDER BY id",
            workspace_id,
            older_than_days,
        )
    return [row["id"] for row in rows]


async def test_a_message_with_a_young_entry_stays(api: Api, org: Organisation, workers: Any) -> None:
    """A late receipt is written in the timeline: the message keeps this entry until it is a day old, and stays with it."""
    await fill(api, org.test.workspace_id, 2, 40, ended=True)
    young, old = await _ids(api, org.test.workspace_id, 30)
    async with owner_connection(api) as owner:
        await owner.execute(
            "INSERT INTO spine.timeline_entries (workspace_id, id, subject_id, kind, actor, request_id) "
            "VALUES ($1, 'tme_young', $2, 'x', '{}', 'req_x')",
            org.test.workspace_id,
            young,
        )
    await Retention(Lease(workers, "maintenance", "test", 30), RETENTION).delete(workers)
    assert await _ids(api, org.test.workspace_id, 0) == [young]
    assert old != young


async def test_every_statement_reads_its_batch_by_an_index(api: Api, org: Organisation, workers: Any) -> None:
    """Among thousands of old rows and of young ones, no node of any plan reads more rows than one batch, or a whole table."""
    id, batch = org.test.workspace_id, 100
    await fill(api, id, 2000, 5, ended=True)
    await fill(api, id, 2000, 40, ended=True, first=5000)
    async with owner_connection(api) as owner:
        await owner.execute("ANALYZE")
    old = (await _ids(api, id, 30))[:batch]
    statements: list[tuple[str, tuple[object, ...]]] = [
        (WORKSPACES, ("", batch)),
        (MESSAGES.find, ([id], RETENTION)),
        (MESSAGES_PAST, (id, "", batch, RETENTION)),
        *((statement, (id, old, batch)) for statement in MESSAGE_PARTS),
        (MESSAGES_DELETE, (id, old, RETENTION)),
        (SANDBOX_RECEIPTS_DELETE, (batch, RETENTION)),
        (RECIPIENT_PACES_DELETE, (batch,)),
        *((history.find, ([id], RETENTION)) for history in HISTORIES),
        *((history.delete, (id, "", batch, RETENTION)) for history in HISTORIES),
    ]
    async with workers.acquire() as connection, connection.transaction():
        for statement, args in statements:
            explain = f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, BUFFERS OFF) {statement}"
            plan = "\n".join(row[0] for row in await connection.fetch(explain, *args))
            assert "Seq Scan" not in plan, plan
            read = re.findall(r"actual rows=(\d+)|Rows Removed by [\w ]+: (\d+)", plan)
            assert max(int(rows or removed) for rows, removed in read) <= batch, plan
