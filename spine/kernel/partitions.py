"""The day partitions of events and closed deliveries. Migrations, every API process and a worker make those that are missing.

Rows without a partition land in the default partition. Nothing is lost there, but workers must move them out again
(`workers.maintenance.default_partition`), so whichever process is alive makes the partitions first.
"""

import asyncio
from typing import Any, Final

import asyncpg
import structlog

PARENTS: Final = ("events", "deliveries_closed")
"""The partitioned tables."""
DAYS_AHEAD: Final = 7
_LOOK_EVERY_S: Final = 600.0

_MISSING: Final = """
    SELECT EXISTS (
        SELECT FROM generate_series(-1, $1::integer) AS n CROSS JOIN unnest($2::text[]) AS parent
         WHERE to_regclass(concat('spine.', parent, '_', to_char((now() AT TIME ZONE 'UTC')::date + n, 'YYYYMMDD'))) IS NULL)
"""
"""Only looks up names in the catalog, and locks nothing."""
ENSURE: Final = "SELECT partition, problem FROM spine.partitions_ensure($1)"

_log = structlog.get_logger(__name__)


async def ensure_partitions(connection: Any) -> bool:
    """Make the missing partitions of the next days. Returns whether all could be made.

    `connection` is a connection or a pool of asyncpg.
    """
    if not await connection.fetchval(_MISSING, DAYS_AHEAD, PARENTS):
        return True
    rows = await connection.fetch(ENSURE, DAYS_AHEAD)
    for row in rows:
        if row["problem"] is not None:
            _log.warning("partition not made", partition=row["partition"], problem=row["problem"])
    return not any(row["problem"] for row in rows)


async def watch_partitions(pool: "asyncpg.Pool[asyncpg.Record]") -> None:
    """Make the missing partitions now and every ten minutes, until cancelled."""
    while True:
        try:
            await ensure_partitions(pool)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            _log.warning("partitions not looked at", error=repr(error))
        await asyncio.sleep(_LOOK_EVERY_S)
