"""The migrations go up and down, one revision at a time and all at once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import asyncpg
import pytest
from asyncpg import Record

import spine.kernel.migrations
from spine.kernel.database import downgrade, migrate
from spine.supervisor.database_logins import create_owner
from tests.conftest import empty_database

VERSIONS: Final = Path(spine.kernel.migrations.__file__).parent / "versions"
REVISIONS: Final = tuple(sorted(path.name.partition("_")[0] for path in VERSIONS.glob("[0-9]*.py")))
CATALOG: Final = """
    WITH relation AS (SELECT * FROM pg_class WHERE relnamespace = to_regnamespace('spine'))
    SELECT * FROM (SELECT 'schema' AS kind, nspname::text AS name, concat_ws(' ', nspowner::regrole, nspacl) AS definition
      FROM pg_namespace WHERE nspname = 'spine'
    UNION ALL SELECT 'relation', relname, concat_ws(' ', relkind, relowner::regrole, relacl, reloptions, relrowsecurity,
           relforcerowsecurity, pg_get_expr(relpartbound, oid), CASE relkind WHEN 'v' THEN pg_get_viewdef(oid) END)
      FROM relation
    UNION ALL SELECT 'column', attrelid::regclass || '.' || attname, concat_ws(' ', format_type(atttypid, atttypmod),
           attcollation, attnotnull, attidentity, attcompression, attacl, pg_get_expr(adbin, adrelid),
           col_description(attrelid, attnum))
      FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
     WHERE attrelid IN (SELECT oid FROM relation) AND attnum > 0 AND NOT attisdropped
    UNION ALL SELECT 'constraint', conrelid::regclass || ' ' || conname, pg_get_constraintdef(oid)
      FROM pg_constraint WHERE connamespace = to_regnamespace('spine')
    UNION ALL SELECT 'index', indexrelid::regclass::text, pg_get_indexdef(indexrelid)
      FROM pg_index WHERE indrelid IN (SELECT oid FROM relation)
    UNION ALL SELECT 'policy', polrelid::regclass || ' ' || polname, concat_ws(' ', polcmd, polroles::regrole[],
           pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
      FROM pg_policy WHERE polrelid IN (SELECT oid FROM relation)
    UNION ALL SELECT 'trigger', tgrelid::regclass || ' ' || tgname, pg_get_triggerdef(oid)
      FROM pg_trigger WHERE tgrelid IN (SELECT oid FROM relation) AND NOT tgisinternal
    UNION ALL SELECT 'function', oid::regprocedure::text, concat_ws(' ', proowner::regrole, proacl, pg_get_functiondef(oid))
      FROM pg_proc WHERE pronamespace = to_regnamespace('spine')
    UNION ALL SELECT 'type', typname, concat_ws(' ', typtype, typowner::regrole, typacl)
      FROM pg_type WHERE typnamespace = to_regnamespace('spine')
    ) AS object WHERE name !~ '_[0-9]{8}' ORDER BY 1, 2
"""
"""The objects of schema spine with definition, owner and grants; without day partitions, which depend on the date."""


async def catalog(url: str) -> list[Record]:
    """The objects of schema spine."""
    connection = await asyncpg.connect(url)
    try:
        found: list[Record] = await connection.fetch(CATALOG)
        return found
    finally:
        await connection.close()


async def test_each_revision_is_reverted_exactly(database: str) -> None:
    """A downgrade by one revision drops what its upgrade created, and the upgrade creates it again."""
    at_revision = {REVISIONS[-1]: await catalog(database)}
    for revision in reversed(REVISIONS[:-1]):
        await downgrade(database, revision)
        at_revision[revision] = await catalog(database)
    await downgrade(database)
    assert await catalog(database) == []
    for revision in REVISIONS:
        await migrate(database, revision)
        assert await catalog(database) == at_revision[revision], revision
    assert len({len(objects) for objects in at_revision.values()}) == len(REVISIONS)


async def test_downgrade_to_nothing_and_back(database: str) -> None:
    """A downgrade of all revisions leaves no object and no schema; an upgrade, even twice, makes the first schema."""
    before = await catalog(database)
    assert {"schema", "relation", "policy", "trigger", "function", "type"} <= {row["kind"] for row in before}
    await downgrade(database)
    assert await catalog(database) == []
    for _ in range(2):
        await migrate(database)
        assert await catalog(database) == before


@pytest.fixture
def unmigrated(postgres_url: str) -> Iterator[str]:
    """The URL of an empty database."""
    with empty_database(postgres_url) as url:
        yield url


async def test_an_owner_who_is_no_superuser_migrates(unmigrated: str) -> None:
    """The database's owner needs no superuser: also the extension that bookings need is one that an owner may create."""
    owner = await create_owner(unmigrated)
    await migrate(owner)
    connection = await asyncpg.connect(owner)
    try:
        assert not await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        assert await connection.fetchval("SELECT true FROM pg_extension WHERE extname = 'btree_gist'")
    finally:
        await connection.close()
    before = await catalog(owner)
    await downgrade(owner, "0011")
    await migrate(owner)
    assert await catalog(owner) == before
