"""Measure the cost of a run per event: CPU by role, round trips, commits, bytes of log, Redis commands."""

import time
from typing import Any

from redis.asyncio import Redis

from bench.database import Database
from bench.installation import Installation
from bench.stats import Cost
from bench.usage import cpu_by_role, memory_by_role

ROLES = ("api", "worker", "postgres", "redis", "receiver")

_READ = """
    SELECT (SELECT coalesce(sum(calls), 0) FROM pg_stat_statements s JOIN pg_roles r ON r.oid = s.userid
             WHERE r.rolname = 'spine_app')::float8 AS app_calls,
           (SELECT coalesce(sum(calls), 0) FROM pg_stat_statements s JOIN pg_roles r ON r.oid = s.userid
             WHERE r.rolname = 'spine_worker')::float8 AS worker_calls,
           pg_snapshot_xmax(pg_current_snapshot())::text::float8 AS writes,
           (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::float8 AS wal_bytes,
           (SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = 'spine' AND c.relkind = 'r')::float8 AS disk_bytes
"""
"""Statements are counted by role, so that those of the benchmark do not count. Every write transaction takes one id."""


class Meter:
    """Measures the work between `start` and `stop(events)`. The benchmark should not use the database in between."""

    def __init__(self, installation: Installation, database: Database) -> None:
        self._pids = installation.pids(*ROLES)
        self._database = database
        self._redis: Redis = Redis.from_url(database.redis_url)

    async def _read(self) -> dict[str, Any]:
        row: dict[str, Any] = dict(await self._database.pool.fetchrow(_READ))
        info = await self._redis.info("stats")
        row["redis"] = info["total_commands_processed"]
        row["cpu"] = cpu_by_role(self._pids)
        row["at"] = time.monotonic()
        return row

    async def start(self) -> None:
        """Start to measure."""
        self._before = await self._read()

    async def stop(self, events: int) -> Cost:
        """Return the cost since `start`, divided by the number of events."""
        after, before = await self._read(), self._before
        await self._redis.aclose()
        diff = {name: after[name] - before[name] for name in after if name != "cpu"}
        return Cost(
            events=events,
            seconds=diff["at"],
            cpu_us={role: (after["cpu"][role] - before["cpu"][role]) / events * 1e6 for role in ROLES},
            app_round_trips=diff["app_calls"] / events,
            worker_round_trips=diff["worker_calls"] / events,
            commits=diff["writes"] / events,
            wal_bytes=diff["wal_bytes"] / events,
            disk_bytes=diff["disk_bytes"] / events,
            redis_commands=diff["redis"] / events,
            memory_bytes=memory_by_role(self._pids),
        )
