"""Postgres: reachable, new enough, durable, migrated, closed between workspaces, and not behind with its work."""

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import asyncpg
from alembic.config import Config
from alembic.script import ScriptDirectory

from spine.cli.doctor import durability, queue, tenancy
from spine.cli.doctor.finding import Finding, by_limits, fail, ok
from spine.kernel import migrations
from spine.kernel.vault import Unsealable, Vault

_OLDEST: Final = 15


async def database(url: str, vault: Vault | None) -> AsyncIterator[Finding]:
    """All of it; what rests on a thing that failed is not asked."""
    try:
        connection = await asyncpg.connect(url, timeout=5, server_settings={"application_name": "spine doctor"})
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        mend = "start it, or correct DATABASE_URL; `make up` starts one where none is given"
        yield fail("postgres", f"not reachable at DATABASE_URL: {str(error) or type(error).__name__}", mend)
        return
    try:
        yield version(connection.get_server_version().major)
        yield clock_skew(await _skew_s(connection))
        async for finding in durability.durability(connection):
            yield finding
        migrated = revision(await _revision(connection), newest_revision())
        yield migrated
        if migrated.level == "fail":
            return
        for part in (tenancy.tenancy(connection), queue.queue(connection), _sealed(connection, vault)):
            async for finding in part:
                yield finding
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        yield fail(
            "postgres", f"a question was not answered: {error}", "run the doctor as a role that may SET ROLE to ours"
        )
    finally:
        await connection.close(timeout=5)


def version(major: int) -> Finding:
    """The server's major version."""
    if major < _OLDEST:
        return fail("postgres", f"version {major}", f"Spine needs Postgres {_OLDEST} or newer")
    return ok("postgres", f"version {major}")


def clock_skew(skew_s: float) -> Finding:
    """How far this machine's clock is from the database's. Signatures carry ours, due times the database's."""
    saw = f"{abs(skew_s):.3f} s {'ahead of' if skew_s > 0 else 'behind'} the database's"
    return by_limits("clock", saw, abs(skew_s), 1, 30, "synchronise both machines' clocks (chrony, systemd-timesyncd)")


async def _skew_s(connection: Any) -> float:
    asked = time.time()
    theirs: datetime = await connection.fetchval("SELECT clock_timestamp()")
    return (asked + time.time()) / 2 - theirs.astimezone(UTC).timestamp()


def newest_revision() -> str | None:
    """The revision that this code was written for."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return ScriptDirectory.from_config(config).get_current_head()


async def _revision(connection: Any) -> str | None:
    if not await connection.fetchval("SELECT to_regclass('public.alembic_version') IS NOT NULL"):
        return None
    found: str | None = await connection.fetchval("SELECT version_num FROM public.alembic_version")
    return found


def revision(found: str | None, newest: str | None) -> Finding:
    """How far the database is migrated."""
    if found == newest:
        return ok("migrations", f"at {newest}, the newest")
    if found is not None and newest is not None and found > newest:
        return fail("migrations", f"at {found}, newer than this code ({newest})", "run the newer code, here too")
    return fail("migrations", f"at {found or 'none'}, the newest is {newest}", "run: spine migrate (as the owner)")


async def _sealed(connection: Any, vault: Vault | None) -> AsyncIterator[Finding]:
    if vault is None:
        return
    async with connection.transaction(readonly=True):
        await connection.execute("SET LOCAL ROLE spine_worker")
        newest = "SELECT secret FROM spine.endpoint_secrets ORDER BY created_at DESC LIMIT 1"
        oldest = "SELECT secret FROM spine.endpoint_secrets ORDER BY created_at LIMIT 1"
        sealed = [await connection.fetchval(query) for query in (newest, oldest)]
    try:
        for secret in sealed:
            if secret is not None:
                vault.open(secret)
    except Unsealable:
        mend = "add the key that sealed them to SPINE_ENCRYPTION_KEY, behind the present one"
        yield fail("sealed secrets", "SPINE_ENCRYPTION_KEY does not open secrets in this database", mend)
        return
    yield ok("sealed secrets", "open with SPINE_ENCRYPTION_KEY" if sealed[0] is not None else "none yet")
