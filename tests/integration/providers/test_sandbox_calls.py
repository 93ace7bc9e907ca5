"""The store of the sandbox's calls: at once in one statement, each counted once, and an error reaches who waits for it."""

import asyncio
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from providers.sandbox.calls import SandboxCall, SandboxCalls
from spine.kernel import ids
from tests.api import Api, Organisation
from tests.database import count_rows, owner_connection


class Counted:
    """A pool of one connection that counts statements, and fails those that it is told to."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.statements = 0
        self.fails = False

    async def execute(self, query: str, *args: object) -> Any:
        """Run a statement."""
        self.statements += 1
        if self.fails:
            raise asyncpg.PostgresConnectionError("away")
        return await self.connection.execute(query, *args)


def call(workspace_id: str, attempt_id: str, receipts: int = 2) -> SandboxCall:
    """An accepted call with so many receipts."""
    bodies = [(b'{"n": %d}' % n, timedelta(hours=n + 1)) for n in range(receipts)]
    return SandboxCall(workspace_id, ids.mint("prv"), attempt_id, f"sbx-{attempt_id}", bodies, late=False)


async def test_calls_at_once_are_one_statement_and_a_repeated_one_counts_once(api: Api, org: Organisation) -> None:
    """250 calls of two workspaces take four statements: the first alone, then 100 at a time; their receipts are in order."""
    attempts = [ids.mint("att") for _ in range(250)]
    workspaces = (org.test.workspace_id, org.live.workspace_id)
    async with owner_connection(api) as connection:
        pool: Any = Counted(connection)
        calls = SandboxCalls(pool)
        await asyncio.gather(*(calls.put(call(workspaces[n % 2], id)) for n, id in enumerate(attempts)))
        assert pool.statements <= 4
        await calls.put(call(workspaces[0], attempts[0]))
        silent = ids.mint("att")
        await calls.put(call(workspaces[0], silent, receipts=0))
        bodies = await connection.fetchval(
            "SELECT array_agg(body ORDER BY seq) FROM spine.sandbox_receipts WHERE attempt_id = $1", attempts[0]
        )
    assert bodies == [b'{"n": 0}', b'{"n": 1}']
    assert await count_rows(api, "sandbox_calls", org.test) == 126
    assert await count_rows(api, "sandbox_receipts", org.test) == 250
    assert await count_rows(api, "sandbox_receipts", org.live) == 250


async def test_an_error_reaches_each_call_of_its_statement_and_no_later_one(api: Api, org: Organisation) -> None:
    """The database is away: every waiting call fails; when it is back the next ones are stored. One who left is not waited for."""
    async with owner_connection(api) as connection:
        pool: Any = Counted(connection)
        calls = SandboxCalls(pool)
        pool.fails = True
        failed = await asyncio.gather(
            *(calls.put(call(org.test.workspace_id, ids.mint("att"))) for _ in range(5)), return_exceptions=True
        )
        assert {type(error) for error in failed} == {asyncpg.PostgresConnectionError}
        pool.fails = False
        left = asyncio.create_task(calls.put(call(org.test.workspace_id, ids.mint("att"))))
        await asyncio.sleep(0)
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        await calls.put(call(org.test.workspace_id, ids.mint("att")))
    assert await count_rows(api, "sandbox_calls", org.test) == 2
