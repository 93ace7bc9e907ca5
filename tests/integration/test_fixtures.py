"""The servers and databases that the other tests stand on."""

import asyncpg
from redis.asyncio import Redis


async def test_a_test_database_is_migrated_and_its_own(database: str, postgres_url: str) -> None:
    """Every test gets a migrated database that no other test has written to."""
    connection = await asyncpg.connect(database)
    try:
        assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'spine'") > 0
        assert await connection.fetchval("SELECT current_database()") in database
        assert await connection.fetchval("SHOW listen_addresses") == ""
    finally:
        await connection.close()


async def test_two_databases_do_not_see_each_other(database: str, module_database: str) -> None:
    """What one test writes, another test's database does not hold."""
    one, other = await asyncpg.connect(database), await asyncpg.connect(module_database)
    try:
        await one.execute("CREATE TABLE public.mark ()")
        assert await other.fetchval("SELECT to_regclass('public.mark')") is None
    finally:
        await one.close()
        await other.close()


async def test_redis_is_empty_when_a_test_begins(redis_url: str) -> None:
    """No test meets the keys of the one before it."""
    async with Redis.from_url(redis_url) as client:
        assert await client.dbsize() == 0
        await client.set("mark", "1")


async def test_redis_is_empty_again_for_the_next_test(redis_url: str) -> None:
    """The key that the test above left is gone."""
    async with Redis.from_url(redis_url) as client:
        assert await client.get("mark") is None
