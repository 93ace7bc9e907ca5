"""Check Postgres: reachable, version, clock, durability, migrations, isolation of workspaces, queue, sealed secrets."""

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg
from alembic.script import ScriptDirectory

from spine.cli.doctor.callbacks import check_callbacks
from spine.cli.doctor.durability import check_durability
from spine.cli.doctor.finding import Finding, by_limits, fail, ok
from spine.cli.doctor.queue import check_queue
from spine.cli.doctor.tenancy import check_tenancy
from spine.kernel.database import migration_config
from spine.kernel.vault import Unsealable, Vault
from spine.webhooks.endpoint_store import secret_place

_MIN_VERSION: Final = 15


async def check_database(url: str, vault: Vault | None, public_url: str | None) -> AsyncIterator[Finding]:
    """Yield the findings about the database. A check that depends on a failed one is skipped."""
    try:
        connection = await asyncpg.connect(url, timeout=5, server_settings={"application_name": "spine doctor"})
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        remedy = "start it, or correct DATABASE_URL; `make up` starts one where none is given"
        yield fail("postgres", f"not reachable at DATABASE_URL: {str(error) or type(error).__name__}", remedy)
        return
    try:
        yield version(connection.get_server_version().major)
        yield clock_skew(await _skew_s(connection))
        async for finding in check_durability(connection):
            yield finding
        migrated = revision(await _applied_revision(connection), newest_revision())
        yield migrated
        if migrated.level == "fail":
            return
        for check in (
            check_tenancy(connection),
            check_queue(connection),
            check_callbacks(connection, public_url),
            _check_secrets(connection, vault),
        ):
            async for finding in check:
                yield finding
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        yield fail(
            "postgres", f"a question was not answered: {error}", "run the doctor as a role that may SET ROLE to ours"
        )
    finally:
        await connection.close(timeout=5)


def version(major: int) -> Finding:
    """Judge the major version of the server."""
    if major < _MIN_VERSION:
        return fail("postgres", f"version {major}", f"Spine needs Postgres {_MIN_VERSION} or newer")
    return ok("postgres", f"version {major}")


def clock_skew(skew_s: float) -> Finding:
    """Judge the difference of the clocks. Signatures use this machine's clock, due times the database's."""
    observed = f"{abs(skew_s):.3f} s {'ahead of' if skew_s > 0 else 'behind'} the database's"
    return by_limits(
        "clock", observed, abs(skew_s), 1, 30, "synchronise both machines' clocks (chrony, systemd-timesyncd)"
    )


async def _skew_s(connection: Any) -> float:
    started_s = time.time()
    database_time: datetime = await connection.fetchval("SELECT clock_timestamp()")
    return (started_s + time.time()) / 2 - database_time.astimezone(UTC).timestamp()


def newest_revision() -> str | None:
    """Return the newest revision of this code."""
    return ScriptDirectory.from_config(migration_config()).get_current_head()


async def _applied_revision(connection: Any) -> str | None:
    if not await connection.fetchval("SELECT to_regclass('public.alembic_version') IS NOT NULL"):
        return None
    found: str | None = await connection.fetchval("SELECT version_num FROM public.alembic_version")
    return found


def revision(found: str | None, newest: str | None) -> Finding:
    """Judge the revision of the database."""
    if found == newest:
        return ok("migrations", f"at {newest}, the newest")
    if found is not None and newest is not None and found > newest:
        return fail("migrations", f"at {found}, newer than this code ({newest})", "run the newer code, here too")
    return fail("migrations", f"at {found or 'none'}, the newest is {newest}", "run: spine migrate (as the owner)")


async def _check_secrets(connection: Any, vault: Vault | None) -> AsyncIterator[Finding]:
    if vault is None:
        return
    async with connection.transaction(readonly=True):
        await connection.execute("SET LOCAL ROLE spine_worker")
        columns = "SELECT workspace_id, endpoint_id, secret FROM spine.endpoint_secrets"
        orders = ("created_at DESC", "created_at")  # the newest and the oldest
        sealed = [await connection.fetchrow(f"{columns} ORDER BY {order} LIMIT 1") for order in orders]
    try:
        for row in sealed:
            if row is not None:
                vault.open(row["secret"], secret_place(row["workspace_id"], row["endpoint_id"]))
    except Unsealable:
        remedy = "add the key that sealed them to SPINE_ENCRYPTION_KEY, behind the present one"
        yield fail("sealed secrets", "SPINE_ENCRYPTION_KEY does not open secrets in this database", remedy)
        return
    yield ok("sealed secrets", "open with SPINE_ENCRYPTION_KEY" if sealed[0] is not None else "none yet")
