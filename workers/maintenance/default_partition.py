"""Move rows out of a default partition into partitions of their days, in bounded batches and without hiding a row.

Rows land in a default partition while the partition of their day is missing: no process made it, or the clock of an API
process is days fast. While they are there, the partition of their day cannot be attached. So the default partition is
copied beside itself, block by block, and replaced in one short transaction (`spine.default_move_begin` and the functions
after it).
"""

import asyncio
import time
from collections import Counter
from datetime import date, timedelta
from typing import Any, Final

import structlog

from spine.kernel.metrics import observe_default_partition
from spine.kernel.partitions import DAYS_AHEAD
from workers.connection import Connection
from workers.maintenance.lease import Lease
from workers.maintenance.table_locks import retry_lock

BATCH_BLOCKS: Final = 64
"""Blocks of 8 KiB in one batch, at most: some thousand small rows. Large values lie outside of these blocks."""
_BATCH_S: Final = 0.5
"""A batch of copies that takes longer is followed by one of half as many blocks, a faster one by one of twice as many."""
_MAX_DAYS: Final = 100
"""Days of one move. The rows of further days stay for the next one."""

_BLOCKS: Final = "SELECT pg_relation_size('spine.' || $1 || '_default') / current_setting('block_size')::bigint"
_DAYS: Final = "SELECT day, rows FROM spine.default_days($1, $2, $3)"
_MISSING: Final = """
    SELECT day FROM (SELECT (now() AT TIME ZONE 'UTC')::date + n AS day FROM generate_series(-1, $2::integer) AS n) AS near
     WHERE to_regclass('spine.' || spine.partition_name($1, day)) IS NULL
"""
_EXPIRE: Final = "SELECT spine.default_expire($1, $2, $3, now() - $4::interval)"
_FIRST_DAY: Final = "SELECT (now() AT TIME ZONE 'UTC' - $1::interval)::date"
_BEGIN: Final = "SELECT move, blocks FROM spine.default_move_begin($1, $2)"
_COPY: Final = "SELECT spine.default_move_copy($1, $2, $3, $4)"
_FINISH: Final = "SELECT partition, problem FROM spine.default_move_finish($1, $2)"

_log = structlog.get_logger(__name__)


async def empty_default_partition(connection: Connection, lease: Lease, parent: str, retention: timedelta) -> None:
    """Delete rows past the retention from the default partition, and move the others into partitions of their days.

    A delivery that closed after the partition of its day was dropped stays until its own retention is over.
    """
    days = await _days(connection, lease, parent, retention)
    observe_default_partition(parent, days.total())
    needed = {day for day in days if day is not None}
    if await connection.fetchval(_BLOCKS, parent):
        # A default partition of many rows that stay prevents that a partition is made beside it.
        needed |= {row["day"] for row in await connection.fetch(_MISSING, parent, DAYS_AHEAD)}
    if needed:
        await _move(connection, lease, parent, sorted(needed)[:_MAX_DAYS])
        days = await _days(connection, lease, parent, retention)
        observe_default_partition(parent, days.total())


async def _days(connection: Connection, lease: Lease, parent: str, retention: timedelta) -> "Counter[date | None]":
    """Delete what is past the retention. Count the other rows by day, without days whose partition may be dropped."""
    first_day: date = await connection.fetchval(_FIRST_DAY, retention)
    found: Counter[date | None] = Counter()
    for block in range(0, await connection.fetchval(_BLOCKS, parent), BATCH_BLOCKS):
        await lease.renew()
        start_s = time.monotonic()
        await connection.fetchval(_EXPIRE, parent, block, BATCH_BLOCKS, retention)
        for row in await connection.fetch(_DAYS, parent, block, BATCH_BLOCKS):
            if row["day"] is None or row["day"] >= first_day:
                found[row["day"]] += row["rows"]
        await asyncio.sleep(time.monotonic() - start_s)  # half of the time is left to others
    return found


async def _move(connection: Connection, lease: Lease, parent: str, days: list[date]) -> None:
    begun: Any = await retry_lock(connection.fetchrow, _BEGIN, parent, days)
    rows = block = 0
    blocks = 1
    while block < begun["blocks"]:
        await lease.renew()
        start_s = time.monotonic()
        rows += await connection.fetchval(_COPY, parent, begun["move"], block, blocks)
        took_s = time.monotonic() - start_s
        block += blocks
        blocks = min(blocks * 2, BATCH_BLOCKS) if took_s < _BATCH_S else max(blocks // 2, 1)
        await asyncio.sleep(took_s)
    await lease.renew()
    partitions = await retry_lock(connection.fetch, _FINISH, parent, begun["move"])
    for row in partitions:
        if row["problem"] is not None:
            _log.warning("partition not made", partition=row["partition"], problem=row["problem"])
    _log.info("rows moved out of the default partition", table=parent, rows=rows, partitions=len(partitions))
