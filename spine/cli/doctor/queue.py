"""Check the work queue: live workers, no overdue deliveries, a short outbox, long work that advances, partitions for the next days."""

from collections.abc import AsyncIterator
from typing import Any, Final

from spine.cli.doctor.finding import Finding, by_limits, fail, ok, warn
from spine.cli.times import format_duration

ALIVE_S: Final = 15.0
_MAX_COUNT: Final = 10_000
"""The count of outbox rows stops here."""
_START: Final = "start workers: `make up`, or python -m arq workers.main.WorkerSettings"
_STATS: Final = """
    SELECT (SELECT count(*) FROM spine.workers WHERE seen_at > now() - make_interval(secs => $1)) AS alive,
           (SELECT extract(epoch FROM now() - max(seen_at)) FROM spine.workers) AS seen_s,
           (SELECT clock_offset_s FROM spine.workers WHERE seen_at > now() - make_interval(secs => $1)
             ORDER BY abs(clock_offset_s) DESC NULLS LAST LIMIT 1) AS clock_offset_s,
           (SELECT extract(epoch FROM now() - min(due_at)) FROM spine.deliveries_open WHERE due_at < now()) AS overdue_s,
           (SELECT extract(epoch FROM now() - accepted_at) FROM spine.outbox ORDER BY seq LIMIT 1) AS outbox_s,
           (SELECT count(*) FROM (SELECT FROM spine.outbox LIMIT $2) AS waiting) AS outbox,
           (SELECT count(*) FROM spine.endpoint_transitions) AS endpoints,
           (SELECT coalesce(sum(moved), 0) FROM spine.endpoint_transitions) AS moved,
           (SELECT count(*) FROM spine.replays WHERE status = 'running') AS replays,
           (SELECT count(*) FROM spine.endpoint_transitions WHERE failures > 3)
         + (SELECT count(*) FROM spine.replays WHERE status = 'running' AND failures > 3) AS put_off,
           (SELECT count(*) FROM (SELECT FROM spine.results_set_apart WHERE created_at > now() - interval '1 day' LIMIT $2) AS found)
               AS set_apart,
           (SELECT max(right(c.relname, 8)) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
             WHERE i.inhparent = 'spine.events'::regclass AND c.relname ~ '_[0-9]{8}$'
               AND right(c.relname, 8) <= to_char(now() AT TIME ZONE 'UTC' + interval '8 days', 'YYYYMMDD')) AS last_day,
           (SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')) AS today,
           (SELECT to_char(now() AT TIME ZONE 'UTC' + interval '1 day', 'YYYYMMDD')) AS tomorrow
"""


async def check_queue(connection: Any) -> AsyncIterator[Finding]:
    """Yield the findings about the queue, from one snapshot."""
    async with connection.transaction(readonly=True):
        await connection.execute("SET LOCAL ROLE spine_worker")
        row = await connection.fetchrow(_STATS, ALIVE_S, _MAX_COUNT)
    yield workers(row["alive"], row["seen_s"])
    if row["clock_offset_s"] is not None:
        yield worker_clocks(row["clock_offset_s"])
    yield overdue(row["overdue_s"])
    yield outbox(row["outbox"], row["outbox_s"])
    yield long_work(row["endpoints"], row["moved"], row["replays"], row["put_off"])
    yield results(row["set_apart"])
    yield partitions(row["last_day"], row["today"], row["tomorrow"])


def workers(alive: int, seen_s: float | None) -> Finding:
    """Judge the number of workers with a heartbeat in the last ALIVE_S seconds."""
    if alive:
        return ok("workers", f"{alive} alive, the last seen {format_duration(max(0.0, float(seen_s or 0)))} ago")
    observed = (
        "none has ever been here"
        if seen_s is None
        else f"none alive; the last was seen {format_duration(float(seen_s))} ago"
    )
    return fail("workers", observed, _START)


def worker_clocks(offset_s: float) -> Finding:
    """Judge the largest difference between a live worker's clock and the database's."""
    observed = f"{abs(offset_s):.3f} s {'behind' if offset_s > 0 else 'ahead of'} the database's, at most"
    remedy = "synchronise the clocks of the workers' machines (chrony, systemd-timesyncd): signatures carry their time"
    return by_limits("worker clocks", observed, abs(offset_s), 1, 30, remedy)


def overdue(age_s: float | None) -> Finding:
    """Judge the age of the oldest due delivery that no worker has claimed."""
    if age_s is None:
        return ok("queue", "nothing overdue")
    observed = f"the oldest due delivery waits since {format_duration(float(age_s))}"
    return by_limits("queue", observed, float(age_s), 10, 120, f"{_START}; more of them, where those that run are busy")


def outbox(depth: int, age_s: float | None) -> Finding:
    """Judge the accepted events that have no deliveries yet."""
    if age_s is None:
        return ok("outbox", "empty")
    count = f"{depth} events" if depth < _MAX_COUNT else f"{depth} events or more"
    observed = f"{count}, the oldest for {format_duration(float(age_s))}"
    return by_limits("outbox", observed, float(age_s), 10, 120, f"{_START}; their log says why events are not taken up")


def long_work(endpoints: int, moved: int, replays: int, put_off: int) -> Finding:
    """Judge the work that goes in steps: replays, and endpoints whose deliveries follow a change."""
    observed = f"{replays} replays run; the deliveries of {endpoints} changed endpoints follow, {moved} so far"
    if put_off:
        remedy = "see error in spine.replays and spine.endpoint_transitions, and the workers' log under 'step put off'"
        return warn("long work", f"{observed}; {put_off} of them fail again and again", remedy)
    return ok("long work", observed)


def results(set_apart: int) -> Finding:
    """Judge the results of the last day that Postgres refused to store."""
    if set_apart:
        return warn("results", f"{set_apart} were set apart within a day", "read error in spine.results_set_apart")
    return ok("results", "none set apart within a day")


def partitions(last_day: str | None, today: str, tomorrow: str) -> Finding:
    """Judge the day partitions of events and deliveries, which workers create in advance."""
    remedy = "start a worker, which makes them; or, as the owner: SELECT spine.partitions_ensure(7)"
    if last_day is None or last_day < today:
        return fail("partitions", f"none for today; the last is {last_day or 'missing'}", remedy)
    if last_day < tomorrow:
        return warn("partitions", "none for tomorrow yet", remedy)
    return ok("partitions", f"made ahead to {last_day}")
