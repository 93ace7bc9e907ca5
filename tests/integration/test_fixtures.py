"""The servers and databases that other tests use."""

import asyncpg
from redis.asyncio import Redis


async def test_a_test_database_is_migrated_and_not_shared(database: str, postgres_url: str) -> None:
    """A test gets its own migrated database, on a server without a TCP port."""
    connection = await asyncpg.connect(database)
    try:
        assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'spine'") > 0
        assert await connection.fetchval("SELECT current_database()") in database
        assert await connection.fetchval("SHOW listen_addresses") == ""
    finally:
        await connection.close()


async def test_two_databases_do_not_see_each_other(database: str, module_database: str) -> None:
    """A table created in one test's database does not exist in another one."""
    one, other = await asyncpg.connect(database), await asyncpg.connect(module_database)
    try:
        await one.execute("CREATE TABLE public.mark ()")
        assert await other.fetchval("SELECT to_regclass('public.mark')") is None
    finally:
        await one.close()
        await other.close()


async def test_redis_is_empty_when_a_test_begins(redis_url: str) -> None:
    """A test starts with an empty Redis; this one leaves a key."""
    async with Redis.from_url(redis_url) as client:
        assert await client.dbsize() == 0
        await client.set("mark", "1")


async def test_redis_is_empty_again_for_the_next_test(redis_url: str) -> None:
    """The key of the test above is gone."""
    async with Redis.from_url(redis_url) as client:
        assert await client.get("mark") is None
