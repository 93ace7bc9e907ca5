"""The database of an API under test, read and written as its owner."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from tests.api import Account, Api


@asynccontextmanager
async def owner_connection(api: Api) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A connection of the database's owner."""
    connection = await asyncpg.connect(api.database_url)
    try:
        yield connection
    finally:
        await connection.close()


async def count_rows(api: Api, table: str, account: Account) -> int:
    """The number of the workspace's rows in a table."""
    async with owner_connection(api) as owner:
        rows: int = await owner.fetchval(
            f"SELECT count(*) FROM spine.{table} WHERE workspace_id = $1", account.workspace_id
        )
    return rows
