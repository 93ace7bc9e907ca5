"""Partitions: drop those past the retention, make those of the next days, and empty the default partitions."""

from collections.abc import Awaitable
from datetime import timedelta
from typing import Final

import asyncpg
import structlog

from spine.kernel.partitions import PARENTS, ensure_partitions
from workers.connection import Connection
from workers.maintenance.default_partition import empty_default_partition
from workers.maintenance.lease import Lease
from workers.maintenance.table_locks import retry_lock

_DROP: Final = "SELECT spine.partitions_drop(now() - $1::interval, $2)"

_log = structlog.get_logger(__name__)


async def rotate_partitions(connection: Connection, lease: Lease, retention: timedelta) -> None:
    """Drop, make and mend partitions. Each step runs whether the others failed or not."""
    for parent in PARENTS:
        await _run_step(f"drop {parent}", _drop(connection, lease, parent, retention))
    await _run_step("make", ensure_partitions(connection))
    for parent in PARENTS:
        await _run_step(f"empty default of {parent}", empty_default_partition(connection, lease, parent, retention))
    await _run_step("make", ensure_partitions(connection))


async def _run_step(name: str, step: Awaitable[object]) -> None:
    try:
        await step
    except asyncpg.PostgresConnectionError:
        raise
    except asyncpg.PostgresError as error:
        _log.warning("partitions not maintained", step=name, error=repr(error))


async def _drop(connection: Connection, lease: Lease, parent: str, retention: timedelta) -> None:
    """Drop the days past the retention, the oldest first, each in its own transaction."""
    while True:
        await lease.renew()
        name = await retry_lock(connection.fetchval, _DROP, retention, parent)
        if name is None:
            return
        _log.info("partition dropped", name=name)
